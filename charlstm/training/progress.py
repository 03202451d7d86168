"""How far a run has come, and how it went on the way: the part of its state that is not arrays."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from charlstm.training.schedule import PLATEAU


@dataclass
class Progress:
    """How far the run has come."""

    step: int = 0
    characters: int = 0  # read, over all epochs
    seconds: float = 0.0  # of training, validation and saving, over all resumptions
    best_loss_nats: float | None = None
    validated_step: int = 0  # the last one that was
    stale: int = 0  # validations since the best one
    plateaus: int = 0  # times that the loss stayed on one
    loss_sum: float = 0.0  # over the steps since the last validation
    loss_count: int = 0
    first_loss: float | None = None  # of the first step
    climbed: int = 0  # steps on end with a loss far above that
    setbacks: int = 0  # times that training diverged and fell back, with the learning rate below
    setback_lr: float = 0.0

    def record_validation(self, loss: float) -> bool:
        """Takes down the loss of a validation. Whether it is the best so far."""
        best = self.best_loss_nats is None or loss < self.best_loss_nats
        if best:
            self.best_loss_nats = loss
        self.stale = 0 if best else self.stale + 1
        self.plateaus += self.stale > 0 and self.stale % PLATEAU == 0
        self.validated_step = self.step
        return best

    def pop_mean_loss(self) -> float:
        """Mean training loss since this was last asked."""
        mean = self.loss_sum / max(self.loss_count, 1)
        self.loss_sum, self.loss_count = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError for what cannot be a run's progress; what an older state lacks is as at the beginning."""
        for f in fields(self):
            value = state.get(f.name, f.default)
            wanted = (int,) if type(f.default) is int else (int, float, type(f.default))
            if type(value) not in wanted or (value is not None and not 0 <= value < 2**53):
                raise ValueError(f.name)
            setattr(self, f.name, value)
