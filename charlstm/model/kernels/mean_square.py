"""The mean squares that the penalties on outputs minimize, with their gradients in a few passes over memory.

With N entries, the gradient of mean(y^2) is 2 y / N. With d_t = k_t (y_t - y_{t-1}), that of mean(d^2) for y_t is
2 (d_t - d_{t+1}) / N, without the term that has no step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def mean_square(y: Tensor) -> Tensor:
    """Return mean(y^2), in float32 at least."""
    return MeanSquare.apply(y)  # type: ignore[no-untyped-call, no-any-return]


def mean_square_change(y: Tensor, keep: Tensor | None) -> Tensor:
    """Return the mean of (k_t (y_t - y_{t-1}))^2 over the steps of y [T, B, H] but the first, in float32 at least.

    keep: k_t, false where no change counts [T, B, 1].
    """
    return MeanSquareChange.apply(y, keep)  # type: ignore[no-untyped-call, no-any-return]


class MeanSquare(torch.autograd.Function):
    """`mean_square` as an autograd function."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return sum_squares(y) / y.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        dy: Tensor = y * (2 * gradient / y.numel())
        return dy


class MeanSquareChange(torch.autograd.Function):
    """`mean_square_change` as an autograd function."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, keep: Tensor | None) -> Tensor:
        change = y.diff(dim=0)
        if keep is not None:
            change.mul_(keep[1:])
        ctx.save_for_backward(change)
        return sum_squares(change) / change.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (change,) = ctx.saved_tensors
        change = change * (2 * gradient / change.numel())
        dy = torch.empty(len(change) + 1, *change.shape[1:], dtype=change.dtype, device=change.device)
        torch.neg(change[0], out=dy[0])
        torch.sub(change[:-1], change[1:], out=dy[1:-1])
        dy[-1] = change[-1]
        return dy, None


def sum_squares(a: Tensor) -> Tensor:
    wide = torch.promote_types(a.dtype, torch.float32)
    norm: Tensor = torch.linalg.vector_norm(a, dtype=wide)
    return norm.square()
