"""One trial: when it is validated, and whether it is pruned."""

from __future__ import annotations

from math import isfinite
from time import monotonic
from typing import Literal

import optuna

from charlstm.training.events import Validated

RUNGS = 5
"""A trial is compared with the others at multiples of a fifth of its time."""

MAX_VALIDATION_SHARE = 0.1
"""Share of its time that a trial may spend on validations before its end. On a long text, one may exceed it."""


class TrialMonitor:
    """What happens to one trial: when it is validated, with which results, and why it ends.

    A trial that is not `prunable` is trained to its end.
    """

    def __init__(self, trial: optuna.Trial, seconds: float, prunable: bool) -> None:
        self.trial, self.seconds, self.prunable = trial, seconds, prunable
        self.losses: list[float] = []  # of its validations, nats per character
        self.rung = 0  # of the last validation: the fifths of its time that were over
        self.next_rung = RUNGS  # of the next validation; the last rung is not announced by `validate_at`
        self.validation_began = 0.0
        self.validation_seconds = 0.0  # of all validations
        self.outcome: Literal["", "pruned", "failed"] = ""
        self.reason = ""  # why it failed
        self.stopped = False  # by the user

    @property
    def over(self) -> bool:
        """Whether it was pruned or failed."""
        return self.outcome != ""

    def fail(self, reason: str) -> None:
        """End the trial as failed."""
        self.outcome, self.reason = "failed", reason

    def validate_at(self, done: float) -> bool:
        """Return whether to validate at this share of the training."""
        rung = int(done * RUNGS)
        too_slow = self.validation_seconds > MAX_VALIDATION_SHARE * self.seconds
        if rung <= self.rung or too_slow:
            return False
        self.next_rung, self.validation_began = rung, monotonic()
        return True

    def record_validation(self, event: Validated) -> None:
        """Report a validation loss to the study, which decides whether the trial is pruned."""
        loss, rung = event.metrics.loss_nats, self.next_rung
        self.next_rung = RUNGS
        if not isfinite(loss):
            self.fail("the validation loss is not finite")
            return
        self.losses.append(loss)
        self.validation_seconds += monotonic() - self.validation_began
        # The end may come twice: the time for the last validation is only known after the first one.
        if rung > self.rung:
            self.rung = rung
            self.trial.report(loss, rung)
            if self.prunable and rung < RUNGS and self.trial.should_prune():
                self.outcome = "pruned"
