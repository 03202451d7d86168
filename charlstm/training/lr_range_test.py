"""A learning-rate range test (Smith 2017, "Cyclical learning rates for training neural networks", sec. 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charlstm.errors import CharlstmError, DivergedError
from charlstm.training.trainer import Trainer

LOWEST_LR, HIGHEST_LR, TEST_STEPS = 1e-5, 1.0, 300
"""The rates tried. With more steps the model learns more at the low ones, and the proposal is a lower one."""

LOSS_SMOOTHING = 0.95
MAX_RISE = 0.25
"""The test ends once the loss is above its lowest by this share of what it was at first."""

MIN_FALL = 0.02
"""A loss that falls by a smaller share than this has only wavered."""


@dataclass(frozen=True)
class RangeTestStep:
    """One step of the test."""

    fraction_done: float  # share of the test, 0 to 1
    learning_rate: float
    loss_nats: float  # smoothed


def run_range_test(trainer: Trainer) -> Iterator[RangeTestStep]:
    """Trains with a rate that grows exponentially, until the loss is far above its lowest or no longer a number.

    The loss is an exponential mean without its bias towards 0 (Kingma & Ba 2015, sec. 3).
    """
    mean, first, lowest = 0.0, 0.0, float("inf")
    for k in range(TEST_STEPS):
        done = k / (TEST_STEPS - 1)
        rate = LOWEST_LR * (HIGHEST_LR / LOWEST_LR) ** done
        try:
            mean = LOSS_SMOOTHING * mean + (1 - LOSS_SMOOTHING) * trainer.step(rate)
        except DivergedError:
            return
        loss = mean / (1 - LOSS_SMOOTHING ** (k + 1))
        first, lowest = first or loss, min(lowest, loss)
        yield RangeTestStep(done, rate, loss)
        if loss > lowest + MAX_RISE * first:
            return


def suggest_rate(curve: Sequence[RangeTestStep]) -> float:
    """A tenth of the rate at which the loss was lowest: there it still fell, and well before it rises.

    Raises CharlstmError if it fell at no rate.
    """
    lowest = min(curve, key=lambda tried: tried.loss_nats, default=None)
    if lowest is None or lowest.loss_nats > (1 - MIN_FALL) * curve[0].loss_nats:
        raise CharlstmError(f"no learning rate from {LOWEST_LR:g} to {HIGHEST_LR:g} made the loss fall")
    return lowest.learning_rate / 10
