"""Gradients through cuDNN's layers, which compute in float16 under autocast, also where autocast's type is bfloat16.

The loss is a mean over all characters of a batch, so that its gradients at a position are tiny: around 1e-6 with 128
streams of 64 characters. float16 has 3 digits down to 6e-5, and rounds to multiples of 6e-8 below. Inside a layer all
gradients are therefore multiplied by a constant (loss scaling, Micikevicius et al. 2018, sec. 3.2); its weights and
inputs get them divided by it, in their own precision. A gradient of a weight above 16 overflows: a loss that diverges.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SCALE = 4096.0


class ScaleGradient(torch.autograd.Function):
    """A tensor in another precision, or the same one, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
        ctx.factor, ctx.dtype = factor, a.dtype
        return a.to(dtype) if dtype != a.dtype else a.view_as(a)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (gradient * ctx.factor).to(ctx.dtype), None, None


def enter_half(a: Tensor) -> Tensor:
    """Return an input or a weight of a layer, whose gradient comes back from it multiplied by `SCALE`."""
    scaled: Tensor = ScaleGradient.apply(a, 1 / SCALE, a.dtype)  # type: ignore[no-untyped-call]
    return scaled


def leave_half(a: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an output of a layer in this precision; its gradient goes into the layer multiplied by `SCALE`."""
    scaled: Tensor = ScaleGradient.apply(a, SCALE, dtype)  # type: ignore[no-untyped-call]
    return scaled
