"""A learning-rate range test (Smith 2017, "Cyclical learning rates for training neural networks", sec. 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charlstm.errors import CharlstmError, DivergedError
from charlstm.training.trainer import Trainer

LOWEST_LR, HIGHEST_LR = 1e-5, 1.0
"""The first and the last rate of the test: no optimizer here trains well below or above a tenth of them."""

TEST_STEPS = 300
"""Steps of the test. With more, the model learns more at the low rates and the suggested rate is lower."""

LOSS_DECAY = 0.95
"""Decay of the moving average of the loss, which the test reports: a batch's own loss is too noisy."""

MAX_RISE = 0.25
"""The test ends once the loss is above its lowest by this share of the first loss."""

MIN_FALL = 0.02
"""A loss that falls by a smaller share than this fluctuates and does not learn."""

SUGGESTION_DIVISOR = 10
"""The rate with the lowest loss, divided by this, is suggested: the loss still falls there, well before it rises."""


@dataclass(frozen=True)
class RangeTestStep:
    """One step of the test.

    fraction_done: share of the test done before this step, 0 to 1.
    learning_rate: the rate of this step.
    loss_nats: moving average of the loss, nats per character.
    """

    fraction_done: float
    learning_rate: float
    loss_nats: float


def run_range_test(trainer: Trainer) -> Iterator[RangeTestStep]:
    """Train with a rate that grows exponentially, until the loss is far above its lowest or not finite.

    The loss is an exponential moving average, corrected for its bias towards 0 (Kingma & Ba 2015, sec. 3).
    """
    mean, first, lowest = 0.0, 0.0, float("inf")
    for k in range(TEST_STEPS):
        done = k / (TEST_STEPS - 1)
        rate = LOWEST_LR * (HIGHEST_LR / LOWEST_LR) ** done
        try:
            mean = LOSS_DECAY * mean + (1 - LOSS_DECAY) * trainer.step(rate)
        except DivergedError:
            return
        loss = mean / (1 - LOSS_DECAY ** (k + 1))
        first, lowest = first or loss, min(lowest, loss)
        yield RangeTestStep(done, rate, loss)
        if loss > lowest + MAX_RISE * first:
            return


def suggest_rate(curve: Sequence[RangeTestStep]) -> float:
    """Return a tenth of the rate at which the loss was lowest. Raises CharlstmError if the loss fell at no rate."""
    best = min(curve, key=lambda step: step.loss_nats, default=None)
    if best is None or best.loss_nats > (1 - MIN_FALL) * curve[0].loss_nats:
        raise CharlstmError(
            f"the loss fell at no learning rate from {LOWEST_LR:g} to {HIGHEST_LR:g}",
            "check that the corpus is text in one encoding, or try another --optimizer",
        )
    return best.learning_rate / SUGGESTION_DIVISOR
