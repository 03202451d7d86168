"""How fast this machine trains: measured for some sizes of model and batch, estimated for the others."""

from __future__ import annotations

from contextlib import closing
from math import log
from statistics import median
from time import perf_counter

from charlstm.architecture import count_parameters, count_recurrent_weights
from charlstm.config import Config
from charlstm.data.corpus import Corpus
from charlstm.model.ranks import Ranks
from charlstm.training.trainer import Trainer

SAMPLE_CHARACTERS = 2_000_000
"""Characters at the start of the text that the speed is measured on: enough for a batch of any size."""

SPEED_TEST_SECONDS = 0.2
"""A speed test lasts this long: a median over it is stable."""

SUSTAINED_SPEED = 0.88
"""Share of the speed of a test that a training keeps up: a test is short, and the best of several was lucky. Trainings
of 30 seconds to 5 minutes kept up 0.69 to 1.07 of it on one virtual machine, 0.8 on average, and 0.74 to 1.18 on
another, 0.96 on average."""

SPEED_TEST_MIN_STEPS, SPEED_TEST_MAX_STEPS = 5, 200
"""Steps of a speed test: at least for a median of a slow model, and at most for a fast one."""

SPEED_TEST_WARMUP_STEPS = 3
"""Steps before those: the first ones map memory and compile."""


class SpeedTests:
    """How many characters per second this machine will train on: measured for some sizes, estimated for the others.

    An estimate is that of `reference_step_seconds`, times what the measured size nearest to it took of that.
    """

    def __init__(self, corpus: Corpus, ranks: Ranks) -> None:
        self.sample, self.ranks = corpus.head(SAMPLE_CHARACTERS), ranks
        self.results: dict[tuple[int, ...], tuple[float, float]] = {}  # seconds of a step: of the reference, and here

    def measure(self, config: Config) -> None:
        """Measure the speed of this size. Raises CharlstmError if the text is too small for it."""
        seconds = measure_step_seconds(self.sample, config, self.ranks)
        self.results[size_of(config)] = (self.reference(config), seconds / SUSTAINED_SPEED)

    def has(self, config: Config) -> bool:
        """Return whether the speed of this size was measured."""
        return size_of(config) in self.results

    def estimate(self, config: Config) -> float:
        """Return the characters/s of this size, measured or estimated."""
        characters = config.training.batch_size * config.training.seq_len
        if self.has(config):
            return characters / self.results[size_of(config)][1]
        expected = self.reference(config)
        nearest = min(self.results.values(), key=lambda pair: abs(log(pair[0] / expected)), default=(1.0, 1.0))
        return characters / (expected * nearest[1] / nearest[0])

    def reference(self, config: Config) -> float:
        """Return the seconds of a step on the machine where the constants were measured."""
        return reference_step_seconds(config, self.sample.vocabulary.size)


def size_of(config: Config) -> tuple[int, ...]:
    """Return the settings that differ between candidates and determine the speed."""
    model, training = config.model, config.training
    return model.layers, model.hidden, training.batch_size, training.seq_len


def reference_step_seconds(config: Config, symbols: int) -> float:
    """Return the seconds of a training step on one core of a Xeon (Sapphire Rapids, AMX), fitted to LSTMs.

    A step has a part for each parameter, which is updated. Each position of its windows reads the weights, and each
    stream multiplies them and computes its units.
    """
    model, training = config.model, config.training
    units = model.layers * model.hidden
    weights = count_recurrent_weights(model) + model.hidden * symbols  # with those of the output layer
    position = 17e-6 * model.layers + 0.19e-9 * weights
    stream = 32e-9 * units + 0.3e-12 * weights
    directions = 1 + model.bidirectional
    windows = training.seq_len * directions * (position + stream * training.batch_size)
    return windows + 1.0e-3 + 6.4e-9 * count_parameters(model, symbols)


def measure_step_seconds(sample: Corpus, config: Config, ranks: Ranks) -> float:
    """Return the seconds of a training step on this machine: the median over some steps, by the first rank's clock."""
    with closing(Trainer(sample, config, ranks)) as trainer:
        times: list[float] = []
        for step in range(SPEED_TEST_MAX_STEPS):
            began = perf_counter()
            trainer.step(config.training.lr / 100)
            if step >= SPEED_TEST_WARMUP_STEPS:
                times.append(ranks.from_first(lambda: perf_counter() - began))  # noqa: B023 (called at once)
            if len(times) >= SPEED_TEST_MIN_STEPS and sum(times) > SPEED_TEST_SECONDS:
                break
        return median(times)
