"""A matrix product with the same matrix at every step of a sequence.

oneDNN multiplies with a matrix in a layout of its own. For each product of two ordinary tensors it first converts the
matrix, which takes half as long as the product if there are few rows. A sequence needs the layout once. The results are
those of the ordinary product, on the processors tried to the last bit; not so in float32, which MKL multiplies.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

MAX_PRODUCT_ROWS = 128
"""Rows up to which the layout is made once; with more, converting the matrix is a small part of the work."""

MIN_WEIGHTS = 2**19
"""Weights from which it is: those of an LSTM of 362 units. Products of smaller matrices take no longer than calling
them."""

MKLDNN: Any = torch.ops.mkldnn


@cache
def is_supported() -> bool:
    """Return whether this build of torch multiplies with oneDNN's layout of a matrix, whose operators are internal."""
    w, x, a = (torch.ones(shape, dtype=torch.bfloat16) for shape in ((32, 16), (4, 16), (4, 32)))
    try:
        layout = MKLDNN._reorder_linear_weight(w, 4)
        product = MKLDNN._linear_pointwise(x, layout, None, "none", [], "")
        total = MKLDNN._linear_pointwise.binary(x, a, layout, None, "add")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((product == 16).all() and (total == 17).all())


class RecurrentProduct:
    """x W^T for many x [B, N] and one W [M, N], which may be the transposed view of another matrix."""

    def __init__(self, w: Tensor, rows: int) -> None:
        self.w, self.layout = w, None
        fits = (
            w.device.type == "cpu"
            and w.dtype == torch.bfloat16
            and rows <= MAX_PRODUCT_ROWS
            and w.numel() >= MIN_WEIGHTS
        )
        if fits and is_supported():
            self.layout = MKLDNN._reorder_linear_weight(w.contiguous(), rows)

    def add(self, a: Tensor, x: Tensor, out: Tensor) -> Tensor:
        """Write a + x W^T to `out` [B, M], and return it. `a` is a bias [M], or [B, M] and may be `out`."""
        if self.layout is None:
            return torch.addmm(a, x, self.w.t(), out=out)
        if a.ndim == 1:
            return out.copy_(MKLDNN._linear_pointwise(x, self.layout, a, "none", [], ""))
        return out.copy_(MKLDNN._linear_pointwise.binary(x, a, self.layout, None, "add"))

    def multiply(self, x: Tensor, out: Tensor) -> Tensor:
        """Write x W^T to `out` [B, M], and return it."""
        if self.layout is None:
            return torch.mm(x, self.w.t(), out=out)
        return out.copy_(MKLDNN._linear_pointwise(x, self.layout, None, "none", [], ""))
