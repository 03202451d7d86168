"""What happens in a search, beside the training events of the trial that runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from charlstm.tuning.space import Value


@dataclass(frozen=True)
class TrialFinished:
    """A trial came to an end, and the journal has it."""

    number: int  # from 0, over all processes
    outcome: Literal["done", "pruned", "failed"]
    loss_nats: float | None  # the best on the validation part; None if it was not validated
    fraction_done: float  # share of its time when it was validated last
    values: dict[str, Value]  # of the settings that are searched
    seconds: float
    reason: str = ""  # it failed
    best: bool = False  # of all so far
