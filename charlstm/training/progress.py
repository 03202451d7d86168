"""How far a run has come: the part of its state that is not arrays."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from charlstm.training.schedule import PLATEAU_LENGTH

MAX_VALUE = 2**53
"""Largest number that a state may hold: floats count exactly up to it."""


@dataclass
class Progress:
    """The counters of a run. The field names are keys in the state file and must not change."""

    step: int = 0  # optimizer steps taken
    characters: int = 0  # read in training, over all epochs
    seconds: float = 0.0  # spent on reading the text, training, validation and saving, over all resumptions
    training_seconds: float = 0.0  # spent on training steps
    best_loss_nats: float | None = None  # lowest validation loss, nats per character
    validated_step: int = 0  # step of the last validation
    stale: int = 0  # validations since the best one
    plateaus: int = 0  # times that the validation loss stopped falling
    loss_sum: float = 0.0  # of the training losses since the last validation
    loss_count: int = 0  # training losses in loss_sum
    first_loss: float | None = None  # training loss of the first step
    climbed: int = 0  # consecutive steps with a loss far above first_loss
    setbacks: int = 0  # roll backs with the learning rate setback_lr
    setback_lr: float = 0.0  # `training.lr` at the last roll back
    learning_rate: float = 0.0  # of the last step
    gradient_norm: float = 0.0  # of the last step, before clipping

    def record_step(self, characters: int, loss: float, learning_rate: float, gradient_norm: float) -> None:
        """Record a step that has read this many characters."""
        self.step += 1
        self.characters += characters
        self.loss_sum += loss
        self.loss_count += 1
        self.learning_rate, self.gradient_norm = learning_rate, min(gradient_norm, MAX_VALUE - 1)

    def record_validation(self, loss: float) -> bool:
        """Record a validation loss. Returns whether it is the best so far."""
        best = self.best_loss_nats is None or loss < self.best_loss_nats
        if best:
            self.best_loss_nats = loss
        self.stale = 0 if best else self.stale + 1
        self.plateaus += self.stale > 0 and self.stale % PLATEAU_LENGTH == 0
        self.validated_step = self.step
        return best

    def pop_mean_loss(self) -> float:
        """Return the mean training loss since the last call, and start a new mean."""
        mean = self.loss_sum / max(self.loss_count, 1)
        self.loss_sum, self.loss_count = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state; fields that an older state lacks get their defaults. Raises ValueError for bad values."""
        state = {"training_seconds": state.get("seconds", 0.0), **state}  # version 0.1.0 counted one time
        for f in fields(self):
            value = state.get(f.name, f.default)
            types = (int,) if type(f.default) is int else (int, float, type(f.default))
            if type(value) not in types or (value is not None and not 0 <= value < MAX_VALUE):
                raise ValueError(f"impossible progress: {f.name} is {value!r}")
            setattr(self, f.name, value)
