"""Settings for `--max-time`: the model, batch, dropout and learning rate that suit the text, the time and the machine.

The numbers here come from the measurements in docs/results.md.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from math import log
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from charlstm.architecture import count_parameters
from charlstm.config import Config
from charlstm.data.batches import fit_batches
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError
from charlstm.settings import updated
from charlstm.training.trainer import Trainer


class ModelSize(NamedTuple):
    """A size of model, with the batch and the learning rate that suit it."""

    min_epochs: float  # with fewer passes over the text, the next smaller model has a lower loss
    layers: int
    hidden: int
    embedding: int
    batch_size: int
    seq_len: int
    lr: float


MODEL_SIZES = (
    ModelSize(min_epochs=0, layers=1, hidden=64, embedding=32, batch_size=8, seq_len=32, lr=1e-2),
    ModelSize(min_epochs=1.5, layers=1, hidden=128, embedding=32, batch_size=8, seq_len=32, lr=1e-2),
    ModelSize(min_epochs=1.5, layers=1, hidden=256, embedding=64, batch_size=16, seq_len=64, lr=8e-3),
    ModelSize(min_epochs=2, layers=1, hidden=384, embedding=64, batch_size=16, seq_len=64, lr=8e-3),
    ModelSize(min_epochs=2.5, layers=1, hidden=512, embedding=64, batch_size=16, seq_len=64, lr=6e-3),
    ModelSize(min_epochs=12, layers=2, hidden=512, embedding=64, batch_size=32, seq_len=64, lr=4e-3),
    ModelSize(min_epochs=24, layers=2, hidden=768, embedding=64, batch_size=32, seq_len=64, lr=3e-3),
)
"""From small to large. In the same time the larger model wins down to two or three passes over the text. A second
layer doubles the time of a step and needs many more passes to be worth it."""


class DropoutRates(NamedTuple):
    """The dropout that suits a number of passes over the text."""

    min_epochs: float
    units: float  # model.dropout
    characters: float  # regularization.embedding_dropout


DROPOUT_BY_EPOCHS = (
    DropoutRates(min_epochs=30, units=0.5, characters=0.1),
    DropoutRates(min_epochs=18, units=0.4, characters=0.05),
    DropoutRates(min_epochs=9, units=0.25, characters=0.05),
    DropoutRates(min_epochs=7, units=0.2, characters=0.03),
    DropoutRates(min_epochs=0, units=0.0, characters=0.0),
)
"""The first row that applies. The more often a text is read, the more the model memorizes without dropout. Below seven
passes dropout slows learning down more than it helps."""

OUTPUT_PENALTY = 1.0
"""Activation and temporal penalty (AR, TAR): worth more than dropout, however often the text is read."""

PENALIZED_CELLS = ("lstm", "lstm-peephole", "lstm-norm", "mlstm")
"""Cells that the penalties help. They make no difference to a GRU, and an Elman network far worse."""

MAX_EPOCHS = 60
"""More passes over a text do not improve the model, whatever the time."""

MAX_PARAMETERS_PER_CHARACTER = 10
"""Limit on the size of the model, for each character of the training part: a larger one only memorizes."""

TRAINING_TIME_SHARE = 0.93
"""Share of the time limit for training; the rest is for validation and saving."""

EARLY_VALIDATION_TIME_SHARE = 0.04
"""Share of the time limit for the validations before the last one."""

VALIDATION_SPEED_FACTOR = 1.5
"""A text is read this many times faster in validation than in training."""

MAX_VALIDATIONS = 10
"""Validations of a run, if there is time: enough to see how it goes, and to find the best model."""

MIN_VALIDATE_EVERY = 50
"""Fewest steps between validations: the training loss is logged as often."""

SAMPLE_CHARACTERS = 2_000_000
"""Characters at the start of the text that the speed is measured on: enough for a batch of any size."""

SPEED_TEST_SECONDS = 0.3
"""A speed test lasts this long: seven sizes take a few seconds, and a median over it is stable."""

SPEED_TEST_MIN_STEPS, SPEED_TEST_MAX_STEPS = 5, 200
"""Steps of a speed test: at least for a median of a slow model, and at most for a fast one."""

SPEED_TEST_WARMUP_STEPS = 3
"""Steps before those: the first ones map memory and compile."""


@dataclass(frozen=True)
class ConfigChoice:
    """The chosen settings and what they are based on.

    config: the settings.
    chars_per_second: measured training speed of this model on this machine.
    epochs: passes over the training part that the time allows.
    characters: characters in the training part.
    """

    config: Config
    chars_per_second: float
    epochs: float
    characters: int

    def __str__(self) -> str:
        model, training = self.config.model, self.config.training
        return (
            f"{model.cell} {model.layers} x {model.hidden}, dropout {model.dropout:g}, {training.batch_size} "
            f"stream{'s' * (training.batch_size != 1)} of {training.seq_len}: at {self.chars_per_second:,.0f} "
            f"characters/s there is time for {self.epochs:.1f} passes over {self.characters:,} characters"
        )


def choose_config(corpus: Corpus, config: Config, given: Collection[str]) -> ConfigChoice:
    """Choose the largest model that can read the text often enough in `training.max_time`.

    The speed of each size is measured on this machine. `given` are the settings (`section.key`) that the user set:
    they keep their values in `config`. Raises CharlstmError if the text is too small for them.
    """
    characters = len(corpus.split(config.data.split).part("train"))
    sample = corpus.head(SAMPLE_CHARACTERS)
    best: ConfigChoice | None = None
    for size in MODEL_SIZES:
        candidate = apply_size(config, given, size)
        candidate = updated(candidate, fit_batches(candidate, characters, given), "--max-time")
        if best and (is_too_large(candidate, corpus, characters) or candidate.model == best.config.model):
            continue
        try:
            speed = measure_speed(sample, candidate)
        except CharlstmError:
            if size is MODEL_SIZES[-1] and best is None:
                raise
            continue
        epochs = TRAINING_TIME_SHARE * config.training.max_time * speed / max(characters, 1)
        if best and epochs < size.min_epochs:
            break
        best = ConfigChoice(candidate, speed, epochs, characters)
    assert best is not None
    return ConfigChoice(regularize_for_epochs(best, given), best.chars_per_second, best.epochs, characters)


def apply_size(config: Config, given: Collection[str], size: ModelSize) -> Config:
    """Return the settings with this size of model, and the batch and learning rate of the size nearest to the result.

    The two differ where the user set the layers or units.
    """
    sized = set_defaults(
        config, given, {"model.layers": size.layers, "model.hidden": size.hidden, "model.embedding": size.embedding}
    )
    weights = sized.model.layers * sized.model.hidden**2
    nearest = min(MODEL_SIZES, key=lambda other: abs(log(other.layers * other.hidden**2 / weights)))
    return set_defaults(
        sized,
        given,
        {
            "training.batch_size": nearest.batch_size,
            "training.seq_len": nearest.seq_len,
            "training.lr": nearest.lr,
        },
    )


def regularize_for_epochs(choice: ConfigChoice, given: Collection[str]) -> Config:
    """Return the settings with the regularization and validation that suit the number of passes over the text."""
    dropout = next(rates for rates in DROPOUT_BY_EPOCHS if choice.epochs >= rates.min_epochs)
    penalty = OUTPUT_PENALTY if choice.config.model.cell in PENALIZED_CELLS else 0.0
    return set_defaults(
        choice.config,
        given,
        {
            "model.dropout": dropout.units,
            "training.epochs": MAX_EPOCHS,
            "training.validate_every": choose_validate_every(choice),
            "regularization.embedding_dropout": dropout.characters,
            "regularization.activation_penalty": penalty,
            "regularization.temporal_penalty": penalty,
        },
    )


def choose_validate_every(choice: ConfigChoice) -> int:
    """Return the steps between validations: ten validations, or fewer where they would take too much of the time."""
    training, shares = choice.config.training, choice.config.data.split
    validation_characters = choice.characters * shares[1] / shares[0]
    seconds, speed = EARLY_VALIDATION_TIME_SHARE * training.max_time, VALIDATION_SPEED_FACTOR * choice.chars_per_second
    affordable = seconds * speed / max(validation_characters, 1)
    steps = min(choice.epochs, MAX_EPOCHS) * choice.characters / (training.batch_size * training.seq_len)
    return max(round(steps / min(max(affordable, 1), MAX_VALIDATIONS)), MIN_VALIDATE_EVERY)


def set_defaults(config: Config, given: Collection[str], values: dict[str, Any]) -> Config:
    """Return the settings with these values for the keys that the user did not set."""
    return updated(config, {key: value for key, value in values.items() if key not in given}, "--max-time")


def is_too_large(config: Config, corpus: Corpus, characters: int) -> bool:
    """Return whether the model has more parameters than this many characters can train."""
    return count_parameters(config.model, corpus.vocabulary.size) > MAX_PARAMETERS_PER_CHARACTER * characters


def measure_speed(sample: Corpus, config: Config) -> float:
    """Return how many characters per second this machine trains on: the median over some steps."""
    with closing(Trainer(sample, config)) as trainer:
        times: list[float] = []
        for step in range(SPEED_TEST_MAX_STEPS):
            began = perf_counter()
            trainer.step(config.training.lr / 100)
            if step >= SPEED_TEST_WARMUP_STEPS:
                times.append(perf_counter() - began)
            if len(times) >= SPEED_TEST_MIN_STEPS and sum(times) > SPEED_TEST_SECONDS:
                break
        return trainer.batches.batch_size * trainer.batches.seq_len / median(times)
