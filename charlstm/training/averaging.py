"""Averages of the weights over the steps of training: a better model than the last step's, for a copy of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from charlstm.config import TrainingConfig

NON_MONOTONE = 5
"""Validations among which the best must lie for NT-ASGD to go on without averaging: n of its paper."""


class WeightAverage:
    """The weights as validated and saved: a moving average of those trained (`ema`), or, with NT-ASGD, their mean since
    the validation loss stopped falling, or simply they themselves."""

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self.model, self.triggered = model, config.optimizer == "nt-asgd"
        self.decay = 0.0 if self.triggered else config.ema
        self.steps = 0  # averaged over
        self.started = bool(self.decay)
        self.losses: list[float] = []  # of validation, until the mean begins
        self.weights = [parameter.detach().clone() for parameter in model.parameters()] if self.on else []

    @property
    def on(self) -> bool:
        return bool(self.decay) or self.triggered

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after a step.

        The moving average's memory grows with the steps, up to 1 / (1 - decay) of them: early weights are soon gone.
        """
        if not self.started:
            return
        self.steps += 1
        share = max(1 - self.decay, 10 / (9 + self.steps)) if self.decay else 1 / self.steps
        torch._foreach_lerp_(self.weights, list(self.model.parameters()), min(share, 1.0))

    def observe_loss(self, loss: float) -> None:
        """Hears of a validation loss. NT-ASGD's mean begins when the best of the last five was before them (Merity et
        al. 2017, algorithm 1)."""
        if self.triggered and not self.started:
            self.started = len(self.losses) > NON_MONOTONE and loss > min(self.losses[:-NON_MONOTONE])
            self.losses.append(loss)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the average for its weights; then with its own again."""
        if not self.steps:
            yield
            return
        own = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.copy_to_model(self.weights)
        try:
            yield
        finally:
            self.copy_to_model(own)

    @torch.no_grad()
    def copy_to_model(self, weights: list[Tensor]) -> None:
        for parameter, weight in zip(self.model.parameters(), weights, strict=True):
            parameter.copy_(weight)

    def state_dict(self) -> dict[str, Any]:
        """For the run's state; the weights by their place."""
        weights = {str(k): weight.cpu().numpy().copy() for k, weight in enumerate(self.weights)}
        return {"steps": self.steps, "begun": self.started, "losses": [*self.losses], "weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for what cannot be an average of these weights."""
        self.steps, self.started = int(state["steps"]), bool(state["begun"])
        self.losses = list(map(float, state["losses"]))
        for k, weight in enumerate(self.weights):
            saved = state["weights"][str(k)]
            if saved.shape != weight.shape or self.steps < 0:
                raise ValueError("average")
            weight.copy_(torch.from_numpy(saved.copy()))
