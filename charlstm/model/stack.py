"""Layers one on the other."""

from __future__ import annotations

from torch import Tensor, nn

from charlstm.config import ModelConfig, RegularisationConfig
from charlstm.model.dropout import drop_rows, drop_units
from charlstm.model.kernels.sequence import State
from charlstm.model.layers import Engine, Layer

States = list[State]


class Stack(nn.Module):
    """The contract of a layer, for several: each one's output, after dropout, is the next one's input.

    Dropout is on what goes up, never on what goes on in time (Zaremba et al. 2014), and on the top layer's output too.
    """

    def __init__(self, config: ModelConfig, engine: Engine, regularisation: RegularisationConfig) -> None:
        super().__init__()
        inputs = [config.embedding, *[config.hidden] * (config.layers - 1)]
        self.layers = nn.ModuleList(Layer(config, width, engine, regularisation.weight_dropout) for width in inputs)
        self.dropout, self.regularisation = config.dropout, regularisation

    def forward(self, ids: Tensor, table: Tensor, states: States) -> tuple[Tensor, States]:
        """The rows of a table [V, E] at ids [T, B], to y [T, B, H] of the top layer, before its dropout."""
        share = self.regularisation.embedding_dropout if self.training else 0.0
        first, *others = self.layers
        y, state = first.read(ids, drop_rows(table, share), states[0])  # type: ignore[operator]
        after = [state]
        for layer, before in zip(others, states[1:], strict=True):
            y, state = layer(self.drop(y), before)
            after.append(state)
        return y, after

    def drop(self, y: Tensor) -> Tensor:
        """y [T, B, H] after dropout, which there is in training only."""
        return drop_units(y, self.dropout if self.training else 0.0, self.regularisation.dropout_mask)

    def start(self, batch: int) -> States:
        return [layer.start(batch) for layer in self.layers]  # type: ignore[operator]
