"""Settings for `--max-time`: the model, batch, dropout and learning rate with the lowest predicted loss.

The prediction is that of `charlstm.training.scaling`, for the number of characters that this machine reads in the time.
The other numbers here come from the measurements in docs/results.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import inf, log2
from time import monotonic
from typing import Any

import numpy as np

from charlstm.architecture import count_parameters, count_recurrent_weights
from charlstm.config import Config, ModelConfig
from charlstm.data.batches import fit_batches
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError
from charlstm.model.ranks import Ranks
from charlstm.settings import updated
from charlstm.training.diagnostics import MAX_PAIRS_COUNTED, entropy_nats, pair_entropy
from charlstm.training.scaling import critical_batch, in_smallest_batches, predict_excess_loss
from charlstm.training.speed import SpeedTests, size_of
from charlstm.wording import quantity

TYPICAL_PAIRS, TYPICAL_SINGLES = 2.4, 3.2
"""Entropy in nats of a character given the one before, and of a single one, in the texts of the measurements."""

FLOOR, EXCESS_SCALE = 0.39, 0.93
"""What these texts leave to chance, and the scale of their losses above it: means that differ by 0.1 from each text."""

HIDDEN_SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""Units of a layer: each is a third or a half more than the one before. The loss changes little in between."""

MAX_LAYERS = 2
"""A second layer more than doubles the time. It is worth that once a text is read again and again; a third one was not
measured."""

BATCHES = ((8, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (256, 128))
"""Streams and characters of a window. Of two batches with as many characters, the one of more streams reaches the
lower loss. A GPU needs large batches."""

MAX_CRITICAL_BATCHES, LARGE_BATCH_PENALTY = 5, 1.0
"""Critical batches in the largest batch of the measurements, and nats by which a larger one counts as worse: in far
fewer steps a model memorizes what it reads, which the law does not know (docs/results.md)."""

REGULARIZATION_BY_EPOCHS = (
    (21, 0.5, 0.1, 1.0),
    (11, 0.4, 0.05, 1.0),
    (7, 0.25, 0.05, 1.0),
    (2.7, 0.15, 0.0, 2.0),
    (0, 0.0, 0.0, 2.0),
)
"""Passes over the text from which a regularization suits: dropout of units, dropout of embeddings, and penalties.

The more often a text is read, the more the model memorizes without dropout; before, dropout slows learning down more
than it helps. The activation and temporal penalty (AR, TAR) are worth more, however often the text is read.
They are passes in the smallest batches (as in `scaling`: larger ones take fewer steps) of a model with a weight for
each character of the text. With w of them, passes count as w ** 0.5 times as many, or w ** 0.25 above 1.
"""

MIN_LR, MAX_LR = 1e-4, 3e-2
"""Range of the learning rates that are chosen: above, training diverges at times."""

LR_BY_CELL = {"gru": 0.4, "gru-cho": 0.4, "rnn": 0.4, "jordan": 0.25}
"""The best learning rate of a cell, relative to that of an LSTM of as many units: 1 for the other LSTMs."""

PENALIZED_CELLS = ("lstm", "lstm-peephole", "lstm-norm", "mlstm")
"""Cells that the penalties help. They make no difference to a GRU, and an Elman network far worse."""

MAX_EPOCHS = 60
"""More passes over a text do not improve the model, whatever the time."""

BIGRAM_ROWS = 1024
"""Rows for pairs of characters. With four times as many, a small batch takes a third longer and gains nothing
(docs/results.md)."""

MAX_PARAMETERS_PER_CHARACTER = 10
"""Limit on the size of the model, for each character of the training part: a larger one only memorizes."""

TRAINING_TIME_SHARE = 0.92
"""Share of the time that is left for training; the rest is for validation and saving."""

EARLY_VALIDATION_TIME_SHARE = 0.02
"""Share of the time limit for the validations before the last one."""

VALIDATION_SPEED_FACTOR = 1.5
"""A text is read this many times faster in validation than in training."""

MAX_VALIDATIONS = 10
"""Validations before the last one, if there is time: enough to see how it goes, and to find the best model."""

FEW_VALIDATION_CHARS = 50_000
"""Characters of a validation below which fewer validations are better than smaller ones."""

MIN_VALIDATION_CHARS, MAX_VALIDATION_CHARS = 10_000, 1_000_000
"""Fewest and most characters of a validation: with the most, the loss is known to about 0.002 nats."""

MIN_VALIDATE_EVERY = 50
"""Fewest steps between validations: the training loss is logged as often."""

MEASURING_TIME_SHARE, MAX_MEASURING_SECONDS = 0.02, 10.0
"""Share of the time limit for speed tests, and the longest time: it ends earlier once the best size is known."""

PRICE_OF_SIZE = 0.005
"""Nats per character that a model with twice as many parameters must promise to be better: near the optimum the loss is
flat, a smaller model samples faster, and it loses less if training is slower than it was in the tests."""

OPTIMISM = 1.4
"""How many times faster than estimated a size may be: on some machines 256 units are faster than 192."""


@dataclass(frozen=True)
class Candidate:
    """Settings that could be chosen, and what they promise.

    config: the settings.
    chars_per_second: training speed of this model on this machine.
    measured: whether the speed was measured; else it is estimated from others.
    characters: characters that a run reads in its time.
    epochs: passes over the training part that these are.
    loss_nats: predicted validation loss, nats per character.
    """

    config: Config
    chars_per_second: float
    measured: bool
    characters: float
    epochs: float
    loss_nats: float

    def __str__(self) -> str:
        model, training = self.config.model, self.config.training
        return (
            f"{model.cell} {model.layers} x {model.hidden}, dropout {model.dropout:g}, "
            f"{quantity(training.batch_size, 'stream')} of {training.seq_len}: at {self.chars_per_second:,.0f} "
            f"characters/s there is time for {self.epochs:.1f} passes"
        )


@dataclass(frozen=True)
class ConfigChoice:
    """The chosen settings and what they are based on.

    best: the chosen candidate.
    candidates: the best candidate of each size: the chosen one first, although a larger one may promise a little more,
        then the others by their predicted loss.
    text_length: characters in the training part.
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    text_length: int

    def __str__(self) -> str:
        return f"{self.best} over {self.text_length:,} characters"


def choose_config(
    corpus: Corpus, config: Config, given: Collection[str], seconds_used: float = 0.0, ranks: Ranks | None = None
) -> ConfigChoice:
    """Choose the settings with the lowest predicted loss after `training.max_time`, or smaller ones nearly as good.

    The candidates are sizes of model and of batch. The speed of the one that could be the best is measured, until that
    is one whose speed is known: a few speed tests, at most `MEASURING_TIME_SHARE` of the time. `given` are the settings
    (`section.key`) that the user set: they keep their values in `config`. `seconds_used` is the part of the time that
    has passed. All `ranks` measure together, and choose the same. Raises CharlstmError if the text is too small for
    them.
    """
    ranks = ranks or Ranks()
    length, limit = len(corpus.split(config.data.split).part("train")), config.training.max_time
    seconds_used = ranks.from_first(lambda: seconds_used)
    seconds = TRAINING_TIME_SHARE * max(limit - seconds_used, 0.0)
    options = list(list_options(config, given, corpus.vocabulary.size, length))
    speeds = SpeedTests(corpus, ranks)
    deadline = inf

    def rank(option: Config, optimism: float = 1.0) -> float:
        """Return the predicted excess loss and the price of the size; `optimism` multiplies a speed not measured."""
        factor = 1.0 if speeds.has(option) else optimism
        characters = factor * count_characters(option, speeds, seconds, length)
        price = PRICE_OF_SIZE * log2(count_parameters(option.model, corpus.vocabulary.size))
        return predict_excess(option, characters, length) + penalize_batch(option, characters) + price

    while True:
        best = min(options, key=partial(rank, optimism=OPTIMISM))
        if speeds.has(best) or ranks.from_first(lambda: monotonic() > deadline):  # noqa: B023 (called at once)
            break
        try:
            speeds.measure(best)
        except CharlstmError:
            options = [option for option in options if size_of(option) != size_of(best)]
            if not options:
                raise
        if deadline == inf:  # the first test also imports what every training needs
            deadline = monotonic() + min(MEASURING_TIME_SHARE * limit, MAX_MEASURING_SECONDS)
    scale = estimate_scale(corpus)
    candidates = [
        complete(option, speeds, count_characters(option, speeds, seconds, length), length, given, scale)
        for option in best_of_each_size(sorted(options, key=rank))
    ]
    candidates[1:] = sorted(candidates[1:], key=lambda each: each.loss_nats)
    chosen = candidates[0].config
    finished = replace(candidates[0], config=set_defaults(chosen, given, plan_validations(candidates[0], length)))
    return ConfigChoice(finished, tuple(candidates), length)


def list_options(config: Config, given: Collection[str], symbols: int, length: int) -> Iterator[Config]:
    """Yield the settings with every size of model and batch that the user left open, as far as they suit the text."""
    layers = [config.model.layers] if "model.layers" in given else range(1, MAX_LAYERS + 1)
    hidden = [config.model.hidden] if "model.hidden" in given else HIDDEN_SIZES
    found = set()
    for depth, width in product(layers, hidden):
        size = {"model.layers": depth, "model.hidden": width, "model.embedding": 32 if width <= 128 else 64}
        sized = set_defaults(config, given, size | {"model.bigrams": BIGRAM_ROWS})
        smallest = depth == min(layers) and width == min(hidden)
        parameters = count_parameters(replace(sized.model, bigrams=0), symbols)  # few pairs occur in a short text
        if not smallest and parameters > MAX_PARAMETERS_PER_CHARACTER * length:
            continue
        for streams, window in BATCHES:
            batch = {"training.batch_size": streams, "training.seq_len": window}
            option = set_defaults(sized, given, batch)
            if fitted := fit_batches(option, length, given):
                option = updated(option, fitted, "--max-time")
            if size_of(option) not in found:
                found.add(size_of(option))
                yield option


def count_characters(option: Config, speeds: SpeedTests, seconds: float, length: int) -> float:
    """Return how many characters a run of this size reads in this time: at least a batch."""
    batch = option.training.batch_size * option.training.seq_len
    return max(min(seconds * speeds.estimate(option), MAX_EPOCHS * length), batch)


def predict_excess(option: Config, characters: float, length: int) -> float:
    """Return the predicted loss above what the text leaves to chance."""
    batch, weights = option.training.batch_size * option.training.seq_len, count_recurrent_weights(option.model)
    return predict_excess_loss(option.model.layers, weights, characters, length, batch)


def penalize_batch(option: Config, characters: float) -> float:
    """Return the penalty, in nats, of a batch that is larger than those of the measurements."""
    batch = option.training.batch_size * option.training.seq_len
    return LARGE_BATCH_PENALTY * (batch > MAX_CRITICAL_BATCHES * critical_batch(characters))


def complete(
    option: Config, speeds: SpeedTests, characters: float, length: int, given: Collection[str], scale: float
) -> Candidate:
    """Return the candidate of this size, with its other settings."""
    loss = scale * (FLOOR + EXCESS_SCALE * predict_excess(option, characters, length))
    settings = fit_to_length(option, characters, length) | {"training.epochs": MAX_EPOCHS}
    speed, measured = speeds.estimate(option), speeds.has(option)
    return Candidate(set_defaults(option, given, settings), speed, measured, characters, characters / length, loss)


def fit_to_length(config: Config, characters: float, length: int) -> dict[str, Any]:
    """Return the learning rate and the regularization for a run that reads `characters` of a text of `length`."""
    density = count_recurrent_weights(config.model) / config.model.layers / length
    batch = config.training.batch_size * config.training.seq_len
    passes = in_smallest_batches(characters, batch) / length * min(density, density**0.5) ** 0.5
    dropout, embeddings, penalty = next(rates for epochs, *rates in REGULARIZATION_BY_EPOCHS if passes >= epochs)
    if config.model.cell not in PENALIZED_CELLS:
        penalty = 0.0
    return {
        "training.lr": choose_lr(config.model, batch, characters / batch),
        "model.dropout": dropout,
        "regularization.embedding_dropout": embeddings,
        "regularization.activation_penalty": penalty,
        "regularization.temporal_penalty": penalty,
    }


def estimate_scale(corpus: Corpus) -> float:
    """Return about how many times higher losses on this text are than on those of the measurements.

    It is the same for all candidates, and known only roughly: a text is not learned to count it.
    """
    ids = corpus.ids[:MAX_PAIRS_COUNTED]
    pairs = pair_entropy(ids)
    if pairs is not None:
        return pairs / TYPICAL_PAIRS
    return entropy_nats(np.unique(ids, return_counts=True)[1]) / TYPICAL_SINGLES


def choose_lr(model: ModelConfig, batch: int, steps: float) -> float:
    """Return the peak learning rate for a model, a batch of `batch` characters and this many steps.

    It falls with the width and the length of training and rises with the batch; the exponents are measured.
    """
    rate = 8e-3 * (256 / model.hidden) ** 0.5 * (batch / 256) ** 0.4 * (4000 / max(steps, 1)) ** 0.35
    rate *= LR_BY_CELL.get(model.cell, 1.0)
    return float(f"{min(max(rate, MIN_LR), MAX_LR):.2g}")


def plan_validations(candidate: Candidate, length: int) -> dict[str, Any]:
    """Return how often a run validates and how much it reads then, so that both take a small share of the time."""
    training, shares = candidate.config.training, candidate.config.data.split
    whole = length * shares[1] / shares[0]
    speed = VALIDATION_SPEED_FACTOR * candidate.chars_per_second
    readable = EARLY_VALIDATION_TIME_SHARE * training.max_time * speed
    count = min(max(readable / min(FEW_VALIDATION_CHARS, max(whole, 1)), 1), MAX_VALIDATIONS)
    characters = min(max(round(readable / count), MIN_VALIDATION_CHARS), MAX_VALIDATION_CHARS)
    steps = candidate.characters / (training.batch_size * training.seq_len)
    return {
        "training.validate_every": max(round(steps / (int(count) + 1)), MIN_VALIDATE_EVERY),
        "training.validation_chars": characters if characters < whole else 0,
    }


def best_of_each_size(options: Collection[Config]) -> Iterator[Config]:
    """Yield the first of each size of model."""
    sizes = set()
    for option in options:
        if (size := (option.model.layers, option.model.hidden)) not in sizes:
            sizes.add(size)
            yield option


def set_defaults(config: Config, given: Collection[str], values: dict[str, Any]) -> Config:
    """Return the settings with these values for the keys that the user did not set."""
    return updated(config, {key: value for key, value in values.items() if key not in given}, "--max-time")
