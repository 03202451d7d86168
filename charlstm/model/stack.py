"""Layers one on the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from charlstm.config import ModelConfig, RegularizationConfig
from charlstm.model.dropout import drop_rows, drop_units
from charlstm.model.kernels.resets import NOWHERE, Resets
from charlstm.model.kernels.sequence import TensorState
from charlstm.model.layers import Engine, Layer

TensorStates = list[TensorState]


class Stack(nn.Module):
    """The contract of a layer, for several: what goes up from each one, after dropout, is the next one's input.

    Dropout is on what goes up, never on what goes on in time (Zaremba et al. 2014), and on what the head reads too.
    What goes up from a layer but the first is its output y, or y + u with its input u (residual, He et al. 2016), or
    g y + (1 - g) u with g = sigmoid(W u + b) (highway, Srivastava et al. 2015).
    """

    def __init__(self, config: ModelConfig, engine: Engine, regularization: RegularizationConfig) -> None:
        super().__init__()
        inputs = [config.embedding, *[config.hidden] * (config.layers - 1)]
        self.layers = nn.ModuleList(Layer(config, width, engine, regularization.weight_dropout) for width in inputs)
        gated = range(1, config.layers) if config.between == "highway" else ()
        self.highways = nn.ModuleDict({str(k): nn.Linear(config.hidden, config.hidden) for k in gated})
        self.config, self.regularization = config, regularization

    def forward(
        self, ids: Tensor, table: Tensor, states: TensorStates, resets: Resets = NOWHERE
    ) -> tuple[list[Tensor], TensorStates]:
        """The rows of a table [V, E] at ids [T, B], to what goes up from each layer, [T, B, H], before dropout."""
        share = self.regularization.embedding_dropout if self.training else 0.0
        first, *others = self.layers
        y, state = first.forward_ids(ids, drop_rows(table, share), states[0], resets)  # type: ignore[operator]
        outputs, after = [y], [state]
        for k, (layer, before) in enumerate(zip(others, states[1:], strict=True), 1):
            u = self.apply_dropout(outputs[-1])
            y, state = layer(u, before, resets)
            outputs.append(self.combine(k, u, y))
            after.append(state)
        return outputs, after

    def combine(self, k: int, u: Tensor, y: Tensor) -> Tensor:
        """What goes up from layer k, of its input and its output."""
        if self.config.between == "highway":
            return torch.lerp(u, y, self.highways[str(k)](u).sigmoid())
        return u + y if self.config.between == "residual" else y

    def apply_dropout(self, y: Tensor) -> Tensor:
        """y [T, B, H] after dropout, which there is in training only."""
        return drop_units(y, self.config.dropout if self.training else 0.0, self.regularization.dropout_mask)

    def enable_gradients(self) -> None:
        """Makes a network that evaluates fit for gradients, still without dropout: cuDNN has them in this mode only."""
        for layer in self.layers:
            layer.core.train()  # type: ignore[union-attr]

    def initial_state(self, batch: int) -> TensorStates:
        return [layer.initial_state(batch) for layer in self.layers]  # type: ignore[operator]
