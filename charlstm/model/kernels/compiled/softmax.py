"""`cross_entropy.softmax_gradient`.

A row of logits stays in the processor's nearest cache while its maximum, its sum and the gradients are computed.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from functools import partial
from math import log
from typing import Any

import numba
import numpy as np

from charlstm.model.kernels.compiled.arithmetic import (
    NumbaArray,
    bits_of_float,
    exp_minus,
    f32,
    float_of_bits,
    load_float,
    store_float,
)
from charlstm.storage.jit import compile_inline


@compile_inline
def softmax_gradient_rows(
    logits: NumbaArray, bias: NumbaArray, targets: NumbaArray, factors: NumbaArray,
    row: NumbaArray, bias_gradient: NumbaArray, sums: NumbaArray,
) -> None:  # fmt: skip
    """Write the sums of the losses and of the target's logits to `sums`. `factors`: the smoothing and the scale."""
    smoothing, scale = factors[0], factors[1]
    loss, target_logits = 0.0, 0.0
    uniform, one_hot = f32(scale * smoothing / len(bias)), f32(scale * (1 - smoothing))  # the two parts of q, scaled
    for n in range(len(logits)):
        target = targets[n]
        maximum = add_bias(logits[n], bias, row)
        target_logit = row[target]
        exponentiate(row, maximum)
        total = sum_row(row)
        loss += maximum + log(total) - target_logit
        target_logits += target_logit
        factor = f32(scale) / total
        store_gradients(logits[n], row, factor, uniform, bias_gradient)
        store_float(logits[n], target, row[target] * factor - uniform - one_hot)
        bias_gradient[target] -= one_hot
    sums[0], sums[1] = loss, target_logits


# Functions of one row, so that the compiler sees that the arrays do not overlap.


@compile_inline
def add_bias(logits: NumbaArray, bias: NumbaArray, row: NumbaArray) -> Any:
    """Set row = logits + bias and return its maximum."""
    maximum = np.int32(-(2**31))
    for k in range(len(row)):
        x = load_float(logits, k) + bias[k]
        row[k] = x
        key = to_ordered_int(np.int32(bits_of_float(x)))
        maximum = key if key > maximum else maximum
    return float_of_bits(np.uint32(to_ordered_int(maximum)))


@numba.njit(inline="always")
def to_ordered_int(bits: Any) -> Any:
    """Map the bits of a float32 to an integer of the same order, and back.

    The maximum of integers is vectorized; that of floats is not, because of NaN.
    """
    return np.int32(bits ^ np.int32((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@compile_inline
def exponentiate(row: NumbaArray, maximum: Any) -> None:
    """Set row = exp(row - maximum)."""
    for k in range(len(row)):
        row[k] = exp_minus(maximum - row[k])


@partial(compile_inline, fastmath="reassoc")
def sum_row(row: NumbaArray) -> Any:
    """Return the sum, in the order that is fastest for the processor."""
    total = f32(0)
    for k in range(len(row)):
        total += row[k]
    return total


@compile_inline
def store_gradients(logits: NumbaArray, row: NumbaArray, factor: Any, uniform: Any, bias_gradient: NumbaArray) -> None:
    """Overwrite the logits with p * scale - q's uniform part, and add that to the gradient of the bias."""
    for k in range(len(row)):
        gradient = row[k] * factor - uniform
        bias_gradient[k] += gradient
        store_float(logits, k, gradient)
