"""What happens in a search, besides the training events of the current trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from charlstm.tuning.space import Value


@dataclass(frozen=True)
class TrialFinished:
    """A trial ended, and its result is in the journal.

    number: the trial, counted from 0 over all processes.
    outcome: "done" (trained to its end), "pruned" (stopped early, behind the others) or "failed".
    loss_nats: lowest validation loss of the trial, nats per character; None if it was never validated.
    fraction_done: share of its time at its last validation, 0 to 1.
    values: the searched settings of the trial, by `section.key`.
    seconds: time that the trial took.
    reason: why it failed, in one sentence.
    best: whether it is the best trial so far.
    repeats: the number of the trial that this one repeats with another seed, if it does.
    """

    number: int
    outcome: Literal["done", "pruned", "failed"]
    loss_nats: float | None
    fraction_done: float
    values: dict[str, Value]
    seconds: float
    reason: str = ""
    best: bool = False
    repeats: int | None = None
