"""One recurrent layer over a sequence: charlstm's kernels, or torch's operators (oneDNN on a CPU, cuDNN on CUDA)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import embedding, linear

from charlstm.cells import CELLS
from charlstm.config import ModelConfig
from charlstm.model.dropout import draw_mask, drop_weights
from charlstm.model.kernels import KERNELS
from charlstm.model.kernels.lookup import Lookup
from charlstm.model.kernels.resets import NOWHERE, Resets
from charlstm.model.kernels.sequence import Sequence, TensorState

Engine = Literal["kernel", "torch"]

Run = Callable[[Tensor, TensorState], tuple[Tensor, TensorState]]

LOOKUP_COST = 100
"""What it takes to sum the errors on a projected row, in columns that could be multiplied meanwhile (on a CPU)."""

TORCH_LAYERS: dict[str, Callable[[int, int], nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
"""The cells that torch has."""


class Layer(nn.Module):
    """`y, state = layer(x, state)` with x [T, B, I] and y [T, B, H], whatever T; `state = layer.start(B)`.

    A text run in one piece, in two with the state carried, or a step at a time gives the same y. The weights are in
    torch's layout, and the same, for both engines.
    """

    def __init__(self, config: ModelConfig, inputs: int, engine: Engine, weight_dropout: float = 0.0) -> None:
        super().__init__()
        self.cell, self.activation, self.hidden, self.engine = config.cell, config.activation, config.hidden, engine
        self.kernel, self.weight_dropout, self.zoneout = KERNELS[config.cell], weight_dropout, config.zoneout
        if self.cell in TORCH_LAYERS:
            self.core: nn.Module = TORCH_LAYERS[self.cell](inputs, self.hidden)
        else:
            shapes = CELLS[self.cell].shapes(inputs, self.hidden)
            self.core = nn.ParameterDict({name: nn.Parameter(torch.empty(shape)) for name, shape in shapes.items()})
        self.reset_parameters()

    def forward(self, x: Tensor, state: TensorState, resets: Resets = NOWHERE) -> tuple[Tensor, TensorState]:
        if self.engine == "torch":
            return self.run_operator(x, state)
        return self.run_kernel(self.project(x), state, resets)

    def forward_ids(
        self, ids: Tensor, table: Tensor, state: TensorState, resets: Resets = NOWHERE
    ) -> tuple[Tensor, TensorState]:
        """`forward` of the rows of a table [V, I] at ids [T, B].

        Where there are many more ids than rows, the rows are projected first and looked up then: one small product.
        """
        rows, width = table.shape
        if self.engine == "torch" or rows * (width + LOOKUP_COST) > ids.numel() * width:
            return self.forward(embedding(ids, table), state, resets)
        return self.run_kernel(Lookup.apply(ids, self.project(table)), state, resets)  # type: ignore[no-untyped-call]

    def project(self, x: Tensor) -> Tensor:
        """What the input contributes to the blocks [..., G*H], for all steps in one product."""
        weights = self.weights()
        bias: Tensor = weights["bias_ih"]
        if "bias_hh" in weights and "bias_hh" not in self.kernel.weights:  # both are added to the same sum
            bias = bias + weights["bias_hh"]
        return linear(x, weights["weight_ih"], bias)

    def run_kernel(self, x: Tensor, state: TensorState, resets: Resets) -> tuple[Tensor, TensorState]:
        """The recurrence by charlstm's kernel, in the precision of `x`. Overwrites `x`, so nobody else may hold it."""
        weights = self.weights() | self.dropped_weights()
        recurrent = [weights[name].to(x.dtype) for name in self.kernel.weights]

        def run(x: Tensor, state: TensorState, resets: Resets = NOWHERE) -> tuple[Tensor, TensorState]:
            y, *after = Sequence.apply(self.kernel, self.activation, resets, len(state), x, *state, *recurrent)  # type: ignore[no-untyped-call]
            return y, tuple(after)

        return (
            run_zoneout(run, x, state, resets, self.zoneout, self.training) if self.zoneout else run(x, state, resets)
        )

    def run_operator(self, x: Tensor, state: TensorState) -> tuple[Tensor, TensorState]:
        """The layer by torch's operator."""
        stacked = tuple(part[None] for part in state)
        inputs = x, stacked if len(stacked) > 1 else stacked[0]
        thinned = {f"{name}_l0": weight for name, weight in self.dropped_weights().items()}
        y, after = functional_call(self.core, thinned, inputs) if thinned else self.core(*inputs)
        return y, tuple(part[0] for part in (after if isinstance(after, tuple) else (after,)))

    def initial_state(self, batch: int) -> TensorState:
        """The state of B sequences that have read nothing: zeros."""
        zeros = next(self.core.parameters()).new_zeros(batch, self.hidden)
        return (zeros,) * CELLS[self.cell].state_arrays

    def dropped_weights(self) -> dict[str, Tensor]:
        """The matrices of the recurrence after dropout, in training; none where there is no such dropout."""
        if not (self.training and self.weight_dropout):
            return {}
        matrices = {n: p for n, p in self.weights().items() if n in self.kernel.weights and n.startswith("weight_hh")}
        return {name: drop_weights(parameter, self.weight_dropout) for name, parameter in matrices.items()}

    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters, by their names in `Cell.shapes`."""
        return {name.removesuffix("_l0"): parameter for name, parameter in self.core.named_parameters()}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier-uniform input weights, orthogonal recurrent ones by blocks (Saxe et al. 2014), gains 1, the rest 0.

        A forget gate starts at 1, so that it remembers before it has learnt to (Jozefowicz et al. 2015).
        """
        for name, parameter in self.weights().items():
            if name == "weight_ih":
                nn.init.xavier_uniform_(parameter)
            elif parameter.ndim == 2:
                for block in parameter.chunk(len(parameter) // self.hidden):
                    nn.init.orthogonal_(block)
            else:
                parameter.fill_(name.startswith("gain"))
            if name == ("bias_hh" if self.cell == "lstm-norm" else "bias_ih") and "lstm" in self.cell:
                parameter[self.hidden : 2 * self.hidden] = 1


def run_zoneout(
    run: Run, x: Tensor, state: TensorState, resets: Resets, share: float, training: bool
) -> tuple[Tensor, TensorState]:
    """A recurrence in which units keep their state (Krueger et al. 2017): a share of them, drawn at every step, in
    training; in evaluation each one that share of it. Step by step, so several times slower than without."""
    y = []
    for t, x_t in enumerate(x.unbind()):
        state = resets.restarted(state, t)
        _, after = run(x_t[None].clone(), state)
        state = tuple(
            apply_zoneout(old.to(new.dtype), new, share, training) for old, new in zip(state, after, strict=True)
        )
        y.append(state[0].to(x.dtype))
    return torch.stack(y), state


def apply_zoneout(old: Tensor, new: Tensor, share: float, training: bool) -> Tensor:
    """The state [B, H] of units of which a share keeps the old one."""
    return torch.where(draw_mask(share, new.shape, new.device), old, new) if training else torch.lerp(new, old, share)
