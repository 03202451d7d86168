"""The activations, in place, and their derivatives in terms of what they gave."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

ATEN: Any = torch.ops.aten


def sigmoid_backward(error: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """out = error * y (1 - y), in one pass: the error before a sigmoid that gave y."""
    ATEN.sigmoid_backward.grad_input(error, y, grad_input=out)
    return out


def tanh_backward(error: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """out = error * (1 - y^2), in one pass: the error before a tanh that gave y."""
    ATEN.tanh_backward.grad_input(error, y, grad_input=out)
    return out


def tanh_(a: Tensor) -> Tensor:
    """tanh(a) in place; in float32 as 2 sigmoid(2a) - 1, in less time than torch's own on a CPU."""
    return a.mul_(2).sigmoid_().mul_(2).sub_(1) if a.dtype == torch.float32 else a.tanh_()


def softsign_(a: Tensor) -> Tensor:
    """a / (1 + |a|) in place."""
    return a.div_(a.abs().add_(1))


def softsign_backward(error: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """out = error * (1 - |y|)^2, for 1 - |y| = 1 / (1 + |a|)."""
    return torch.mul(error, y.abs().neg_().add_(1).square_(), out=out)


class KernelActivation(NamedTuple):
    """What bounds a cell's candidate."""

    apply_: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]


KERNEL_ACTIVATIONS = {
    "tanh": KernelActivation(tanh_, tanh_backward),
    "softsign": KernelActivation(softsign_, softsign_backward),
}


class PointwiseOps(NamedTuple):
    """What a cell does between two products, for one step."""

    view: Callable[[Tensor], Any]
    """How the functions want a tensor; what is given can be taken apart over time like the tensor."""
    forward: Callable[..., None]
    backward: Callable[..., None]


def identity(a: Tensor) -> Tensor:
    return a


@cache
def load_fused() -> ModuleType | None:
    """`fused.py`; None where numba is not installed, or does not go with the NumPy that is."""
    try:
        from charlstm.model.kernels import fused  # takes 0.3 s; who samples or trains on CUDA does without
    except ImportError:
        return None
    return fused


def load_fused_for(a: Tensor, act: KernelActivation) -> ModuleType | None:
    """The compiled arithmetic, where it stands in for tensor operations: on a CPU, in float32 or bfloat16, with tanh.

    In blocks of a wider array (mLSTM's) it is no faster than they are.
    """
    fits = a.device.type == "cpu" and a.dtype in (torch.float32, torch.bfloat16) and a.is_contiguous()
    return load_fused() if fits and act.apply_ == tanh_ else None
