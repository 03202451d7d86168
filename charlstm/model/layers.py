"""A recurrent layer over a sequence, run by charlstm's kernels or by torch (oneDNN on a CPU, cuDNN on CUDA)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from charlstm.cells import CELLS
from charlstm.config import ModelConfig
from charlstm.model.dropout import draw_stream_mask, drop_weights
from charlstm.model.kernels import KERNELS
from charlstm.model.kernels.half import enter_half, leave_half
from charlstm.model.kernels.lookup import Lookup
from charlstm.model.kernels.resets import NO_RESETS, Resets
from charlstm.model.kernels.sequence import Sequence, TensorState

Engine = Literal["kernel", "torch"]

TORCH_LAYERS: dict[str, Callable[[int, int], nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
"""The layers of torch, by cell. The other cells have a kernel only."""

TORCH_FUNCTIONS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "lstm": torch.lstm, "gru": torch.gru, "rnn": torch.rnn_tanh
}  # fmt: skip
"""What they call, given the weights. `torch.func.functional_call` keeps the graph of the weights that it is given."""

LOOKUP_COST = 100
"""Cost of summing the gradients of one projected row, in columns of a matrix product, measured on a CPU."""

RunSequence = Callable[[Tensor, TensorState], tuple[Tensor, TensorState]]


class Layer(nn.Module):
    """A recurrent layer: `y, state = layer(x, state)` with x [T, B, I] and y [T, B, H], for any T.

    The first state is `layer.initial_state(B)`. A text read at once, in two pieces with the state carried over, or one
    character at a time gives the same y. The weights are laid out as in `torch.nn`, and are the same for both engines.

    Args:
        config: the cell, its activation, its width and its zoneout.
        inputs: I.
        engine: "kernel", or "torch" for the cells in `TORCH_LAYERS`.
        weight_dropout: rate of DropConnect on the recurrent matrices in training.
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

    def forward(self, x: Tensor, state: TensorState, resets: Resets = NO_RESETS) -> tuple[Tensor, TensorState]:
        if self.engine == "torch":
            return self.run_torch_layer(x, state)
        return self.run_kernel(self.project(x), state, resets)

    def forward_ids(
        self, ids: Tensor, table: Tensor, state: TensorState, resets: Resets = NO_RESETS
    ) -> tuple[Tensor, TensorState]:
        """Run the layer on the rows of a table [V, I] at ids [T, B].

        If there are many more ids than rows, it projects the rows first and looks up the results: a smaller product.
        """
        rows, width = table.shape
        if self.engine == "torch" or rows * (width + LOOKUP_COST) > ids.numel() * width:
            return self.forward(embedding(ids, table), state, resets)
        return self.run_kernel(Lookup.apply(ids, self.project(table)), state, resets)  # type: ignore[no-untyped-call]

    def project(self, x: Tensor) -> Tensor:
        """Return the contribution of the input to the blocks, W_ih x + b_ih [..., G*H]: one product for all steps."""
        weights = self.weights()
        bias: Tensor = weights["bias_ih"]
        if "bias_hh" in weights and "bias_hh" not in self.kernel.weights:  # both are added to the same sum
            bias = bias + weights["bias_hh"]
        return linear(x, weights["weight_ih"], bias)

    def run_kernel(self, x: Tensor, state: TensorState, resets: Resets) -> tuple[Tensor, TensorState]:
        """Run charlstm's kernel on projected inputs [T, B, G*H], in their precision. Overwrites x."""
        weights = self.weights() | self.dropped_weights()
        recurrent = [weights[name].to(x.dtype) for name in self.kernel.weights]

        def run(x: Tensor, state: TensorState, resets: Resets = NO_RESETS) -> tuple[Tensor, TensorState]:
            y, *state_after = Sequence.apply(self.kernel, self.activation, resets, len(state), x, *state, *recurrent)  # type: ignore[no-untyped-call]
            return y, tuple(state_after)

        if self.zoneout:
            return run_zoneout(run, x, state, resets, self.zoneout, self.training)
        return run(x, state, resets)

    def run_torch_layer(self, x: Tensor, state: TensorState) -> tuple[Tensor, TensorState]:
        """Run torch's layer, on CUDA under autocast with scaled gradients (`half.py`)."""
        weights = self.weights() | self.dropped_weights()
        if not (x.is_cuda and torch.is_autocast_enabled("cuda")):
            return self.call_torch(x, state, weights)
        halves = {name: enter_half(weight) for name, weight in weights.items()}
        y, after = self.call_torch(enter_half(x), tuple(map(enter_half, state)), halves)
        return leave_half(y, torch.get_autocast_dtype("cuda")), tuple(leave_half(a, torch.float32) for a in after)

    def call_torch(self, x: Tensor, state: TensorState, weights: Mapping[str, Tensor]) -> tuple[Tensor, TensorState]:
        """Run torch's layer with these weights, and its state as [1, B, H]."""
        stacked = tuple(array[None] for array in state)
        inputs = x, stacked if len(stacked) > 1 else stacked[0]
        flat = [weights[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        training = self.core.training  # cuDNN needs it for gradients
        with ignore_copied_weights() if x.is_cuda else nullcontext():
            y, *after = TORCH_FUNCTIONS[self.cell](*inputs, flat, True, 1, 0.0, training, False, False)
        return y, tuple(array[0] for array in after)

    def initial_state(self, batch: int) -> TensorState:
        """Return the state of B sequences before their first character: zeros."""
        zeros = next(self.core.parameters()).new_zeros(batch, self.hidden)
        return (zeros,) * len(CELLS[self.cell].state)

    def dropped_weights(self) -> dict[str, Tensor]:
        """Return the recurrent matrices after weight dropout; nothing in evaluation or without weight dropout."""
        if not (self.training and self.weight_dropout):
            return {}
        matrices = {n: p for n, p in self.weights().items() if n in self.kernel.weights and n.startswith("weight_hh")}
        return {name: drop_weights(parameter, self.weight_dropout) for name, parameter in matrices.items()}

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the parameters by their names in `Cell.shapes`."""
        return {name.removesuffix("_l0"): parameter for name, parameter in self.core.named_parameters()}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize: Xavier-uniform input matrices, orthogonal recurrent blocks (Saxe et al. 2014), gains 1, biases 0.

        The bias of a forget gate is 1, so that the cell remembers from the start (Jozefowicz et al. 2015).
        """
        for name, parameter in self.weights().items():
            if name == "weight_ih":
                nn.init.xavier_uniform_(parameter)
            elif parameter.ndim == 2:
                for block in parameter.chunk(len(parameter) // self.hidden):
                    nn.init.orthogonal_(block)
            else:
                parameter.fill_(name.startswith("gain"))
            if name == CELLS[self.cell].forget_bias:
                parameter[self.hidden : 2 * self.hidden] = 1


@contextmanager
def ignore_copied_weights() -> Iterator[None]:
    """Ignore the warning that cuDNN copies weights together, as it must after weight dropout."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        yield


def run_zoneout(
    run: RunSequence, x: Tensor, state: TensorState, resets: Resets, rate: float, training: bool
) -> tuple[Tensor, TensorState]:
    """Run a recurrence in which units keep their previous state (Krueger et al. 2017).

    In training, a random share of the units keeps it at every step; in evaluation, every unit keeps that share of it.
    The sequence runs step by step and is several times slower than without zoneout.
    """
    y = []
    for x_t, k in zip(x.unbind(), resets.masks(len(x)), strict=True):
        if k is not None:
            state = tuple(array * k for array in state)
        _, after = run(x_t[None].clone(), state)
        state = tuple(
            apply_zoneout(old.to(new.dtype), new, rate, training) for old, new in zip(state, after, strict=True)
        )
        y.append(state[0].to(x.dtype))
    return torch.stack(y), state


def apply_zoneout(old: Tensor, new: Tensor, rate: float, training: bool) -> Tensor:
    """Return a state [B, H] between old and new: this share of the units keeps the old one."""
    if not training:
        return torch.lerp(new, old, rate)
    return torch.where(draw_stream_mask(rate, new.shape, new.device), old, new)
