"""One recurrent layer over a sequence, by torch's own operators (oneDNN on a CPU, cuDNN on CUDA)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from charlstm.cells import CELLS

State = tuple[Tensor, ...]
"""As in `cells.py`: each [B, H], the first of them h_t."""

OPERATORS: dict[str, Callable[[int, int], nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Layer(nn.Module):
    """`y, state = layer(x, state)` with x [T, B, I] and y [T, B, H], whatever T; `state = layer.start(B)`.

    A text run in one piece, in two with the state carried, or a step at a time gives the same y.
    """

    def __init__(self, cell: str, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell = cell
        self.core = OPERATORS[cell](inputs, hidden)
        self.initialise()

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        stacked = tuple(part[None] for part in state)
        y, after = self.core(x, stacked if len(stacked) > 1 else stacked[0])
        return y, tuple(part[0] for part in (after if isinstance(after, tuple) else (after,)))

    def start(self, batch: int) -> State:
        """The state of B sequences that have read nothing: zeros."""
        weight = next(self.core.parameters())
        zeros = weight.new_zeros(batch, self.core.hidden_size)
        return (zeros,) * CELLS[self.cell].states

    @torch.no_grad()
    def initialise(self) -> None:
        """Xavier-uniform input weights, orthogonal recurrent ones gate by gate (Saxe et al. 2014), biases 0.

        An LSTM's forget gate starts at 1, so that it remembers before it has learnt to (Jozefowicz et al. 2015).
        """
        hidden = self.core.hidden_size
        for name, parameter in self.core.named_parameters():
            if name.startswith("bias"):
                parameter.zero_()
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            else:
                for gate in range(0, len(parameter), hidden):
                    nn.init.orthogonal_(parameter[gate : gate + hidden])
            if self.cell == "lstm" and name.startswith("bias_ih"):
                parameter[hidden : 2 * hidden] = 1
