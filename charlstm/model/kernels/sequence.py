"""The contract of a cell's kernel, and its connection to autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charlstm.model.kernels.pointwise import KERNEL_ACTIVATIONS, KernelActivation
from charlstm.model.kernels.resets import Resets

TensorState = tuple[Tensor, ...]
"""The state of a layer, as in `cells.py`: tensors [B, H], h_t first."""

TensorTuple = tuple[Tensor, ...]

Forward = Callable[
    [Tensor, TensorState, TensorTuple, KernelActivation, Resets], tuple[Tensor, TensorState, TensorTuple]
]
Backward = Callable[
    [Tensor, TensorState, TensorTuple, TensorTuple, KernelActivation, Resets],
    tuple[Tensor, TensorState, TensorTuple],
]


class Kernel(NamedTuple):
    """A cell over T steps, with a backward pass through time that is derived by hand.

    `forward(x, state, weights, act, resets)` returns y [T, B, H], the final state, and the tensors that `backward`
    needs. It overwrites x [T, B, G*H], the contribution of the input to the G blocks of the cell.

    `backward(dy, dstate, saved, weights, act, resets)` takes the gradients of y and of the final state, and returns
    the gradients of x, of the initial state and of the weights.

    Products and gates have the dtype of x. What accumulates over time (the cell state of an LSTM, the state of a GRU,
    and their gradients) has at least float32. `resets` says which sequences restart before which steps.
    """

    weights: tuple[str, ...]  # names of the recurrent weights, in the order of the functions' `weights`
    forward: Forward
    backward: Backward


class Sequence(torch.autograd.Function):
    """A kernel as an autograd function of x, the initial state and the recurrent weights; returns y and final state."""

    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, activation: str, resets: Resets, state_size: int, x: Tensor, *tensors: Tensor
    ) -> TensorTuple:
        state, weights = tensors[:state_size], tensors[state_size:]
        y, state, saved = kernel.forward(x, state, weights, KERNEL_ACTIVATIONS[activation], resets)
        ctx.kernel, ctx.activation, ctx.resets, ctx.saved_count = kernel, activation, resets, len(saved)
        ctx.save_for_backward(*saved, *weights)
        return (y, *state)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *dstate: Tensor) -> tuple[Tensor | None, ...]:
        saved, weights = ctx.saved_tensors[: ctx.saved_count], ctx.saved_tensors[ctx.saved_count :]
        act = KERNEL_ACTIVATIONS[ctx.activation]
        dx, dstate, dweights = ctx.kernel.backward(dy.contiguous(), dstate, saved, weights, act, ctx.resets)
        return (None, None, None, None, dx, *dstate, *dweights)


def copy_for_accumulation(state: Tensor) -> Tensor:
    """Return a copy in at least float32, to be updated in place at every step."""
    return at_least_float32(state.clone())


def at_least_float32(a: Tensor) -> Tensor:
    """Return `a` in float32, or unchanged if it is wider. Sums over many steps lose too much in half precision."""
    return a.to(torch.promote_types(a.dtype, torch.float32))


def new_state_buffer(initial: Tensor, steps: int) -> Tensor:
    """Return a buffer [T+1, B, H] for the states of T steps, with the initial state [B, H] at index 0."""
    buffer = initial.new_empty(steps + 1, *initial.shape)
    buffer[0] = initial
    return buffer


def iterate_steps(*arrays: Iterable[Any]) -> Iterator[Any]:
    """Iterate over several tensors, NumPy arrays or lists [T, ...] together, one step at a time."""
    return zip(*arrays, strict=True)


def iterate_steps_reversed(*arrays: Any) -> Iterator[Any]:
    """Iterate as `iterate_steps` does, from the last step to the first."""
    return zip(*(reversed(tuple(a)) for a in arrays), strict=True)


def merge_time_and_batch(a: Tensor) -> Tensor:
    """Reshape [T, B, N] to [T*B, N], for one matrix product over all steps."""
    return a.flatten(0, 1)


def weight_gradient(gradients: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient [M, N] of a matrix, given the gradients [T, B, M] of its outputs and its inputs [T, B, N].

    The sum over time and batch of gradient times input is one matrix product.
    """
    return merge_time_and_batch(gradients).t() @ merge_time_and_batch(inputs)
