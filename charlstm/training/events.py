"""What happens in training, in the order in which `train` tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from charlstm.evaluation.metrics import Metrics


@dataclass(frozen=True)
class Started:
    """Everything is ready; nothing was trained yet in this process."""

    device: str
    parameters: int
    total_steps: int
    steps_per_epoch: int
    step: int  # 0, or where a resumed run goes on
    new_characters: str = ""  # the characters that the model of --init-from did not know


@dataclass(frozen=True)
class Stepped:
    """One optimizer step was taken."""

    step: int
    epoch: int
    fraction_done: float  # share of the training, 0 to 1
    loss_nats: float  # of this batch, per character
    learning_rate: float
    chars_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Validated:
    """The validation part was read, and the run saved."""

    step: int
    seconds: float
    train_loss_nats: float  # mean since the last validation
    metrics: Metrics
    best: bool


@dataclass(frozen=True)
class RolledBack:
    """Training diverged, and goes on from the last good state with a lower learning rate."""

    step: int  # where it diverged
    to_step: int  # where it goes on
    reason: str
    factor: float  # of the learning rate, from now on


@dataclass(frozen=True)
class Finished:
    """The end: as planned, for want of a better validation loss, or asked for. The run is saved."""

    reason: Literal["done", "patience", "stopped"]
    step: int
    steps: int  # of them taken since Started
    seconds: float
    best_loss_nats: float | None


Event = Started | Stepped | Validated | RolledBack | Finished
