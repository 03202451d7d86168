"""The best model that a time buys: its size, batch, dropout and learning rate, from the text, the time and the machine.

What the numbers here were chosen by is in docs/results.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import log
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from charlstm.architecture import count_parameters
from charlstm.config import Config
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError
from charlstm.settings import updated
from charlstm.training.trainer import Trainer


class ModelSize(NamedTuple):
    """A size of model, and the batch and learning rate that suit it."""

    min_epochs: float  # over the text below which a smaller model comes out ahead
    layers: int
    hidden: int
    embedding: int
    batch_size: int
    seq_len: int
    lr: float


SIZES = (
    ModelSize(0, 1, 64, 32, 8, 32, 1e-2),
    ModelSize(1.5, 1, 128, 32, 8, 32, 1e-2),
    ModelSize(1.5, 1, 256, 64, 16, 64, 8e-3),
    ModelSize(2, 1, 384, 64, 16, 64, 8e-3),
    ModelSize(2.5, 1, 512, 64, 16, 64, 6e-3),
    ModelSize(12, 2, 512, 64, 32, 64, 4e-3),
    ModelSize(24, 2, 768, 64, 32, 64, 3e-3),
)

LEFT_OUT = ((30, 0.5, 0.1), (18, 0.4, 0.05), (9, 0.25, 0.05), (7, 0.2, 0.03), (0, 0.0, 0.0))
"""Dropout, and that of characters, from so many passes over the text on: the more often it is read, the more has to be
left out."""

SMOOTHING = 1.0
"""Weight of the penalties on the top layer's output and on its change: worth more than any dropout, however often the
text is read."""

SMOOTHED = ("lstm", "lstm-peephole", "lstm-norm", "mlstm")
"""Cells for which they are. A GRU does neither better nor worse with them, and Elman's network much worse."""

MAX_EPOCHS = 60
"""More do no good, whatever the time."""

MAX_PARAMETERS_PER_CHARACTER = 10
"""A training character."""

SHARE = 0.93
"""Of the time, for training; the rest goes to validation and saving."""

VALIDATING, READING = 0.04, 1.5
"""Of the time, for validations before the last; and how many times as fast as in training a text is read in one."""

ENOUGH = 2_000_000
"""Characters of a text that tell how fast it can be read."""


@dataclass(frozen=True)
class ConfigChoice:
    """What was chosen and what it rests on."""

    config: Config
    chars_per_second: float
    epochs: float  # that the time allows
    characters: int  # in the training part

    def __str__(self) -> str:
        model, training = self.config.model, self.config.training
        return (
            f"{model.cell} {model.layers} x {model.hidden}, dropout {model.dropout:g}, {training.batch_size} streams "
            f"of {training.seq_len}: at {self.chars_per_second:,.0f} characters/s there is time to read "
            f"{self.characters:,} characters {self.epochs:.1f} times"
        )


def choose_config(corpus: Corpus, config: Config, given: Collection[str]) -> ConfigChoice:
    """The largest model that reads the text often enough in `max_time`, measured here and now.

    `given` are the settings (`section.key`) that somebody chose; they stay as they are in `config`. Raises
    CharlstmError if the text is too small for any.
    """
    characters = len(corpus.split(config.data.split).part("train"))
    sample = corpus.head(ENOUGH)
    best: ConfigChoice | None = None
    for rung in SIZES:
        candidate = apply_size(config, given, rung)
        if best and (is_too_large(candidate, corpus, characters) or candidate.model == best.config.model):
            continue
        try:
            speed = measure_speed(sample, candidate)
        except CharlstmError:
            if rung is SIZES[-1] and best is None:
                raise
            continue
        epochs = SHARE * config.training.max_time * speed / max(characters, 1)
        if best and epochs < rung.min_epochs:
            break
        best = ConfigChoice(candidate, speed, epochs, characters)
    assert best is not None
    return ConfigChoice(regularize_for_epochs(best, given), best.chars_per_second, best.epochs, characters)


def apply_size(config: Config, given: Collection[str], rung: ModelSize) -> Config:
    """The settings with a rung's for those that nobody chose; batch and learning rate as they suit that size."""
    sized = override_defaults(
        config, given, {"model": {name: getattr(rung, name) for name in ("layers", "hidden", "embedding")}}
    )
    units = sized.model.layers * sized.model.hidden**2
    suited = min(SIZES, key=lambda other: abs(log(other.layers * other.hidden**2 / units)))
    training = {name: getattr(suited, name) for name in ("batch_size", "seq_len", "lr")}
    return override_defaults(sized, given, {"training": training})


def regularize_for_epochs(best: ConfigChoice, given: Collection[str]) -> Config:
    """The settings that follow from how often the text will be read."""
    training = {"epochs": MAX_EPOCHS, "validate_every": choose_validate_every(best)}
    units, characters = next((units, rows) for least, units, rows in LEFT_OUT if best.epochs >= least)
    smoothing = SMOOTHING if best.config.model.cell in SMOOTHED else 0.0
    regularization = {
        "embedding_dropout": characters,
        "activation_penalty": smoothing,
        "temporal_penalty": smoothing,
    }
    return override_defaults(
        best.config, given, {"model": {"dropout": units}, "training": training, "regularization": regularization}
    )


def choose_validate_every(best: ConfigChoice) -> int:
    """Steps between validations: ten of them, or so few that they take little of the time."""
    training, shares = best.config.training, best.config.data.split
    validated = best.characters * shares[1] / shares[0]
    affordable = VALIDATING * training.max_time * READING * best.chars_per_second / max(validated, 1)
    steps = min(best.epochs, MAX_EPOCHS) * best.characters / (training.batch_size * training.seq_len)
    return max(round(steps / min(max(affordable, 1), 10)), 50)


def override_defaults(config: Config, given: Collection[str], tree: dict[str, dict[str, Any]]) -> Config:
    ours = {f"{section}.{name}": value for section, values in tree.items() for name, value in values.items()}
    return updated(config, {key: value for key, value in ours.items() if key not in given}, "what was chosen")


def is_too_large(config: Config, corpus: Corpus, characters: int) -> bool:
    """Whether the model has more parameters than so short a text can teach it."""
    return count_parameters(config.model, corpus.vocabulary.size) > MAX_PARAMETERS_PER_CHARACTER * characters


def measure_speed(sample: Corpus, config: Config, seconds: float = 0.3) -> float:
    """How fast this machine trains it: the median of some steps."""
    trainer = Trainer(sample, config)
    times: list[float] = []
    for taken in range(200):
        begun = perf_counter()
        trainer.step(config.training.lr / 100)
        if taken >= 3:  # the first ones map memory and compile
            times.append(perf_counter() - begun)
        if len(times) >= 5 and sum(times) > seconds:
            break
    return trainer.batches.batch_size * trainer.batches.seq_len / median(times)
