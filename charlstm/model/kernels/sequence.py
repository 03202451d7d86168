"""The bridge between a cell's kernel and autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charlstm.model.kernels.pointwise import KERNEL_ACTIVATIONS, KernelActivation
from charlstm.model.kernels.resets import Resets

TensorState = tuple[Tensor, ...]
"""As in `cells.py`: each [B, H], the first of them h_t."""

TensorTuple = tuple[Tensor, ...]


class Kernel(NamedTuple):
    """A cell over T steps. The input's contribution `x` [T, B, G*H] is overwritten.

    Arithmetic is in the dtype of `x` and of the weights; what adds up over time (an LSTM's cell state, a GRU's
    state, the errors on them) is carried in at least float32. Where a sequence starts afresh, h_{t-1} and c_{t-1} are 0
    in all equations, and so are the errors on them (`resets.py`).
    """

    weights: tuple[str, ...]  # their names, in the order in which the functions take them
    forward: Callable[
        [Tensor, TensorState, TensorTuple, KernelActivation, Resets], tuple[Tensor, TensorState, TensorTuple]
    ]
    """x, state, weights -> y [T, B, H], the state after it, and what `backward` will need."""
    backward: Callable[
        [Tensor, TensorState, TensorTuple, TensorTuple, KernelActivation, Resets],
        tuple[Tensor, TensorState, TensorTuple],
    ]
    """errors on y and on the state after it, what was kept, weights -> errors on x, on the state before and on the
    weights."""


class Sequence(torch.autograd.Function):
    """y and the state after it, from x, the state before it and the weights of the recurrence."""

    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, activation: str, resets: Resets, states: int, x: Tensor, *tensors: Tensor
    ) -> TensorTuple:
        state, weights = tensors[:states], tensors[states:]
        y, after, kept = kernel.forward(x, state, weights, KERNEL_ACTIVATIONS[activation], resets)
        ctx.kernel, ctx.activation, ctx.resets, ctx.kept = kernel, activation, resets, len(kept)
        ctx.save_for_backward(*kept, *weights)
        return (y, *after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *dafter: Tensor) -> tuple[Tensor | None, ...]:
        kept, weights = ctx.saved_tensors[: ctx.kept], ctx.saved_tensors[ctx.kept :]
        act = KERNEL_ACTIVATIONS[ctx.activation]
        dx, dstate, dweights = ctx.kernel.backward(dy.contiguous(), dafter, kept, weights, act, ctx.resets)
        return (None, None, None, None, dx, *dstate, *dweights)


def copy_for_accumulation(state: Tensor) -> Tensor:
    """A copy to add to, step after step."""
    return at_least_float32(state.clone())


def at_least_float32(a: Tensor) -> Tensor:
    """The same numbers in a type fit for sums over many steps; half precision would round each of them."""
    return a.to(torch.promote_types(a.dtype, torch.float32))


def new_state_buffer(first: Tensor, length: int) -> Tensor:
    """A buffer [T+1, B, H] of which place 0 is the state before the first step."""
    buffer = first.new_empty(length + 1, *first.shape)
    buffer[0] = first
    return buffer


def iterate_steps(*arrays: Iterable[Any]) -> Iterator[Any]:
    """The tensors (or NumPy's arrays) [T, ...] side by side, a step at a time; views, made once for the sequence."""
    return zip(*arrays, strict=True)


def iterate_steps_reversed(*arrays: Any) -> Iterator[Any]:
    """`steps`, from the last to the first."""
    return zip(*(reversed(tuple(a)) for a in arrays), strict=True)


def merge_time_and_batch(a: Tensor) -> Tensor:
    """[T, B, N] as [T*B, N]: all steps of all sequences, for one matrix product."""
    return a.flatten(0, 1)


def weight_gradient(errors: Tensor, inputs: Tensor) -> Tensor:
    """The gradient of a weight: the sum over time and batch of error times input, as one matrix product.

    errors [T, B, M], inputs [T, B, N]: [M, N].
    """
    return merge_time_and_batch(errors).t() @ merge_time_and_batch(inputs)
