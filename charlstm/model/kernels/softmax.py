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
    Array,
    F,
    bits_of_float,
    compile_cached,
    compile_inline,
    exp_minus,
    float_of_bits,
    get,
    put,
    to_numba_array,
)


def fused_errors(
    logits: Tensor, bias: Tensor, targets: Tensor, smoothing: float, scale: float, sums: Tensor
) -> tuple[float, float]:
    """As `cross_entropy.errors`."""
    row = torch.empty_like(bias)
    loss, own = compute_errors(
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
def compute_errors(
    logits: Array,
    bias: Array,
    targets: Array,
    smoothing: Any,
    scale: Any,
    row: Array,
    sums: Array,
) -> tuple[Any, Any]:
    loss, own = 0.0, 0.0
    even, hit = F(scale * smoothing / len(bias)), F(scale * (1 - smoothing))
    for n in range(len(logits)):
        target = targets[n]
        greatest = add(logits[n], bias, row)
        logit = row[target]
        raise_(row, greatest)
        total = sum_of(row)
        loss += greatest + log(total) - logit
        own += logit
        share = F(scale) / total
        put_errors(logits[n], row, share, even, sums)
        put(logits[n], target, row[target] * share - even - hit)
        sums[target] -= hit
    return loss, own


# One row each, so that the compiler can see that the arrays do not overlap.


@compile_inline
def add(logits: Array, bias: Array, row: Array) -> Any:
    """row = logits + bias, and the greatest number in it."""
    greatest = np.int32(-(2**31))
    for k in range(len(row)):
        x = get(logits, k) + bias[k]
        row[k] = x
        key = ordered(np.int32(bits_of_float(x)))
        greatest = key if key > greatest else greatest
    return float_of_bits(np.uint32(ordered(greatest)))


@numba.njit(inline="always")
def ordered(bits: Any) -> Any:
    """The bits of a float32 as a whole number that is greater where that is, and back: whole numbers' maxima vectorise,
    those of floats do not, for the sake of what is no number."""
    return np.int32(bits ^ np.int32((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@compile_inline
def raise_(row: Array, greatest: Any) -> None:
    """row = exp(row - greatest)"""
    for k in range(len(row)):
        row[k] = exp_minus(greatest - row[k])


@partial(compile_inline, freedom="reassoc")
def sum_of(row: Array) -> Any:
    """The sum, in the order that suits the processor."""
    total = F(0)
    for k in range(len(row)):
        total += row[k]
    return total


@compile_inline
def put_errors(logits: Array, row: Array, share: Any, even: Any, sums: Array) -> None:
    for k in range(len(row)):
        error = row[k] * share - even
        sums[k] += error
        put(logits, k, error)
