"""Averages of the weights over the steps of training: a better model than the weights of the last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from charlstm.config import TrainingConfig

NON_MONOTONE_INTERVAL = 5
"""NT-ASGD: start to average once the best loss is older than this many validations (n of Merity et al. 2017)."""

MEMORY_DIVISOR = 10
"""The moving average covers the last tenth of the steps, until that is 1 / (1 - decay) steps: it forgets the first,
bad weights soon, and is useful early."""


class WeightAverage:
    """The weights that are validated and saved.

    With `training.ema`, an exponential moving average of the trained weights. With NT-ASGD, their mean since the
    validation loss stopped falling. Otherwise the trained weights themselves.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self.model, self.triggered = model, config.optimizer == "nt-asgd"
        self.decay = 0.0 if self.triggered else config.ema
        self.steps = 0  # averaged so far
        self.started = bool(self.decay)
        self.losses: list[float] = []  # of the validations before the mean of NT-ASGD starts
        enabled = self.triggered or self.decay
        self.weights = [parameter.detach().clone() for parameter in model.parameters()] if enabled else []

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights after a step to the average."""
        if not self.started:
            return
        self.steps += 1
        if self.decay:
            share = max(1 - self.decay, MEMORY_DIVISOR / (MEMORY_DIVISOR - 1 + self.steps))
        else:
            share = 1 / self.steps
        torch._foreach_lerp_(self.weights, list(self.model.parameters()), min(share, 1.0))

    def observe_loss(self, loss: float) -> None:
        """Take note of a validation loss, which decides when NT-ASGD starts to average.

        It starts when the loss is above the best one before the last five (Merity et al. 2017, algorithm 1).
        """
        if self.triggered and not self.started:
            earlier = self.losses[:-NON_MONOTONE_INTERVAL]
            self.started = bool(earlier) and loss > min(earlier)
            self.losses.append(loss)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights within the context, and its trained weights back afterwards."""
        if not self.steps:
            yield
            return
        trained = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.copy_to_model(self.weights)
        try:
            yield
        finally:
            self.copy_to_model(trained)

    @torch.no_grad()
    def copy_to_model(self, weights: list[Tensor]) -> None:
        """Copy these weights, in the order of `model.parameters()`, to the model."""
        for parameter, weight in zip(self.model.parameters(), weights, strict=True):
            parameter.copy_(weight)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs. The weights are keyed by their place in `model.parameters()`."""
        weights = {str(k): weight.cpu().numpy().copy() for k, weight in enumerate(self.weights)}
        return {"steps": self.steps, "begun": self.started, "losses": [*self.losses], "weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for a state that is not of this model and these settings."""
        self.steps, self.started = int(state["steps"]), bool(state["begun"])
        self.losses = list(map(float, state["losses"]))
        for k, weight in enumerate(self.weights):
            saved = state["weights"][str(k)]
            if saved.shape != weight.shape or self.steps < 0:
                raise ValueError(f"averaged weight {k} does not fit the model")
            weight.copy_(torch.from_numpy(saved.copy()))
