"""From logits to the loss and the errors on them, compiled by numba: what `fused.py` is to cells, for the head.

A row of logits stays in the processor's nearest cache while its greatest number, the sum and the errors are found.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from functools import partial
from math import log
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from charlstm.model.kernels.fused import (
    NumbaArray,
    bits_of_float,
    compile_cached,
    compile_inline,
    exp_minus,
    f32,
    float_of_bits,
    load_float,
    store_float,
    to_numba_array,
)


def fused_softmax_gradient(
    logits: Tensor, bias: Tensor, targets: Tensor, smoothing: float, scale: float, sums: Tensor
) -> tuple[float, float]:
    """As `cross_entropy.errors`."""
    row = torch.empty_like(bias)
    loss, own = softmax_gradient_rows(
        to_numba_array(logits),
        to_numba_array(bias),
        to_numba_array(targets),
        smoothing,
        scale,
        to_numba_array(row),
        to_numba_array(sums),
    )
    return loss, own


@compile_cached
def softmax_gradient_rows(
    logits: NumbaArray,
    bias: NumbaArray,
    targets: NumbaArray,
    smoothing: Any,
    scale: Any,
    row: NumbaArray,
    sums: NumbaArray,
) -> tuple[Any, Any]:
    loss, own = 0.0, 0.0
    even, hit = f32(scale * smoothing / len(bias)), f32(scale * (1 - smoothing))
    for n in range(len(logits)):
        target = targets[n]
        greatest = add_bias(logits[n], bias, row)
        logit = row[target]
        exponentiate(row, greatest)
        total = sum_row(row)
        loss += greatest + log(total) - logit
        own += logit
        share = f32(scale) / total
        store_gradients(logits[n], row, share, even, sums)
        store_float(logits[n], target, row[target] * share - even - hit)
        sums[target] -= hit
    return loss, own


# One row each, so that the compiler can see that the arrays do not overlap.


@compile_inline
def add_bias(logits: NumbaArray, bias: NumbaArray, row: NumbaArray) -> Any:
    """row = logits + bias, and the greatest number in it."""
    greatest = np.int32(-(2**31))
    for k in range(len(row)):
        x = load_float(logits, k) + bias[k]
        row[k] = x
        key = to_ordered_int(np.int32(bits_of_float(x)))
        greatest = key if key > greatest else greatest
    return float_of_bits(np.uint32(to_ordered_int(greatest)))


@numba.njit(inline="always")
def to_ordered_int(bits: Any) -> Any:
    """The bits of a float32 as a whole number that is greater where that is, and back: whole numbers' maxima vectorise,
    those of floats do not, for the sake of what is no number."""
    return np.int32(bits ^ np.int32((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@compile_inline
def exponentiate(row: NumbaArray, greatest: Any) -> None:
    """row = exp(row - greatest)"""
    for k in range(len(row)):
        row[k] = exp_minus(greatest - row[k])


@partial(compile_inline, freedom="reassoc")
def sum_row(row: NumbaArray) -> Any:
    """The sum, in the order that suits the processor."""
    total = f32(0)
    for k in range(len(row)):
        total += row[k]
    return total


@compile_inline
def store_gradients(logits: NumbaArray, row: NumbaArray, share: Any, even: Any, sums: NumbaArray) -> None:
    for k in range(len(row)):
        error = row[k] * share - even
        sums[k] += error
        store_float(logits, k, error)
