"""Activations in place, their derivatives in terms of their outputs, and the choice of the compiled implementation."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

ATEN: Any = torch.ops.aten


def sigmoid_backward(dy: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """Write dy * y (1 - y) to `out` in one pass: the gradient of the input of y = sigmoid(a)."""
    ATEN.sigmoid_backward.grad_input(dy, y, grad_input=out)
    return out


def tanh_backward(dy: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """Write dy * (1 - y^2) to `out` in one pass: the gradient of the input of y = tanh(a)."""
    ATEN.tanh_backward.grad_input(dy, y, grad_input=out)
    return out


def tanh_(a: Tensor) -> Tensor:
    """Apply tanh in place. In float32 it is 2 sigmoid(2a) - 1, which is faster than torch's tanh on a CPU."""
    is_slow = a.dtype == torch.float32 and a.device.type == "cpu"
    return a.mul_(2).sigmoid_().mul_(2).sub_(1) if is_slow else a.tanh_()


def softsign_(a: Tensor) -> Tensor:
    """Apply a / (1 + |a|) in place."""
    return a.div_(a.abs().add_(1))


def softsign_backward(dy: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """Write dy * (1 - |y|)^2 to `out`: the gradient of the input, since 1 - |y| = 1 / (1 + |a|)."""
    return torch.mul(dy, y.abs().neg_().add_(1).square_(), out=out)


class KernelActivation(NamedTuple):
    """The activation of a cell's candidate: `apply_(a)` in place, and `backward(dy, y, out)`."""

    apply_: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]


KERNEL_ACTIVATIONS = {
    "tanh": KernelActivation(tanh_, tanh_backward),
    "softsign": KernelActivation(softsign_, softsign_backward),
}


@cache
def load_fused() -> ModuleType | None:
    """Import `fused.py`. Returns None if numba is not installed or does not support the installed NumPy."""
    try:
        from charlstm.model.kernels import fused, native  # sampling and training on CUDA do not need it

        if native.code_store().is_empty():
            import numba  # noqa: F401 (it takes half a second; its functions may all be compiled)
    except ImportError:
        return None
    return fused


def load_fused_for(a: Tensor, act: KernelActivation) -> ModuleType | None:
    """Return `fused.py` if it supports tensors like `a` and this activation, else None.

    It supports contiguous float32 and bfloat16 tensors on a CPU, and tanh.
    """
    fits = a.device.type == "cpu" and a.dtype in (torch.float32, torch.bfloat16) and a.is_contiguous()
    return load_fused() if fits and act.apply_ == tanh_ else None
