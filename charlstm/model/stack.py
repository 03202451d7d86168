"""Several recurrent layers on top of each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from charlstm.config import ModelConfig, RegularizationConfig
from charlstm.model.bigrams import Bigrams
from charlstm.model.dropout import drop_rows, drop_units
from charlstm.model.kernels.resets import NO_RESETS, Resets
from charlstm.model.kernels.sequence import TensorState
from charlstm.model.layers import Engine, Layer

TensorStates = list[TensorState]
"""The state of every layer, then that of the bigrams, if any: the last symbol that was read, plus 1, [B, 1]."""


class Stack(nn.Module):
    """Recurrent layers; each reads the output of the one below after dropout.

    Dropout is applied between layers and before the head, never to the recurrence (Zaremba et al. 2014). From the
    second layer on, the output is the layer's y, or y + u with its input u (residual, He et al. 2016), or
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
        self,
        ids: Tensor,
        table: Tensor,
        states: TensorStates,
        resets: Resets = NO_RESETS,
        bigrams: Bigrams | None = None,
    ) -> tuple[list[Tensor], TensorStates]:
        """Read the rows of a table [V, E] at ids [T, B]; return the output [T, B, H] of every layer before dropout.

        With bigrams, theirs are added, and the last of the states is that of the bigrams.
        """
        rate = self.regularization.embedding_dropout if self.training else 0.0
        first, *others = self.layers
        table = drop_rows(table, rate)
        if bigrams is None:
            y, state = first.forward_ids(ids, table, states[0], resets)  # type: ignore[operator]
        else:
            *states, (last,) = states
            pairs, last = bigrams(ids, last, resets)
            y, state = first(embedding(ids, table) + pairs, states[0], resets)
        outputs, states_after = [y], [state]
        for k, (layer, state) in enumerate(zip(others, states[1:], strict=True), 1):
            u = self.apply_dropout(outputs[-1])
            y, state_after = layer(u, state, resets)
            outputs.append(self.combine(k, u, y))
            states_after.append(state_after)
        if bigrams is not None:
            states_after.append((last,))
        return outputs, states_after

    def combine(self, k: int, u: Tensor, y: Tensor) -> Tensor:
        """Return the output of layer k, given its input u and the output y of its recurrence."""
        if self.config.between == "highway":
            return torch.lerp(u, y, self.highways[str(k)](u).sigmoid())
        return u + y if self.config.between == "residual" else y

    def apply_dropout(self, y: Tensor) -> Tensor:
        """Return y [T, B, H] after dropout, which is applied in training only."""
        return drop_units(y, self.config.dropout if self.training else 0.0, self.regularization.dropout_mask)

    def enable_gradients(self) -> None:
        """Put torch's layers in training mode, which cuDNN needs for gradients; charlstm's dropout stays off."""
        for layer in self.layers:
            layer.core.train()  # type: ignore[union-attr]

    def initial_state(self, batch: int) -> TensorStates:
        return [layer.initial_state(batch) for layer in self.layers]  # type: ignore[operator]
