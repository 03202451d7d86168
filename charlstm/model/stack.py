"""Layers one on the other."""

from __future__ import annotations

from torch import Tensor, nn

from charlstm.model.layers import Layer, State

States = list[State]


class Stack(nn.Module):
    """The contract of a layer, for several: each one's output, after dropout, is the next one's input.

    Dropout is on what goes up, never on what goes on in time (Zaremba et al. 2014), and on the top layer's output too.
    """

    def __init__(self, cell: str, inputs: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(cell, hidden if k else inputs, hidden) for k in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """x [T, B, I] to y [T, B, H]."""
        after = []
        for layer, state in zip(self.layers, states, strict=True):
            x, state = layer(x, state)
            x = self.dropout(x)
            after.append(state)
        return x, after

    def start(self, batch: int) -> States:
        return [layer.start(batch) for layer in self.layers]  # type: ignore[operator]
