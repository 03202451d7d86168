"""Products of a weight matrix with N vectors, such as the states of N samples.

A matrix product by BLAS sums in an order that depends on its shape: in the last bits, a row of the result depends on
how many others there are, and a sample would depend on how many are drawn with it. In a product of small integers no
sum is rounded, so that its order does not matter. A `QuantizedMatrix` therefore multiplies all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MAX_WEIGHT = 127
"""Largest integer of a weight: eight bits with its sign."""

MAX_LEVEL = 2**15 - 1
"""Largest integer of a vector's entry: sixteen bits with its sign."""

MAX_EXACT = 2**24 - 1
"""Sums of integers whose magnitudes add up to no more than this are exact in float32, in any order."""

MIN_LEVEL = 250
"""The largest integer of a vector's entry is at least this: less would cost more precision than the weights do."""

MIN_TOGETHER = 16
"""Fewest vectors that are multiplied together: for fewer, a matrix product is slower than products with each vector."""

MAX_ROWWISE = 64
"""Most vectors that are multiplied one by one with a matrix of floats."""


class QuantizedMatrix:
    """A matrix [R, C] of 8-bit integers with a scale for each row. Vectors are rounded to integers, too.

    parts: the integers, as float32, in parts of consecutive columns: [R, C1], [R, C2], ...
    scales: one per row, [R].
    level: the largest integer of a vector's entry.
    is_bounded: whether every entry of a vector is between -1 and 1. Otherwise each vector has a scale of its own.
    """

    def __init__(self, parts: Sequence[Array], scales: Array, level: int, is_bounded: bool) -> None:
        self.parts, self.scales, self.level, self.is_bounded = parts, scales, np.float32(level), is_bounded
        self.units = scales / self.level
        edges = np.cumsum([0, *(part.shape[1] for part in parts)]).tolist()
        self.columns = [slice(*pair) for pair in pairwise(edges)]
        self.row_slices: dict[tuple[int | None, int | None], QuantizedMatrix] = {}
        self.multiply_vector: Callable[[Array], Array] | None = None  # a faster `multiply` for one vector

    @classmethod
    def quantize(cls, matrix: Array, is_bounded: bool) -> QuantizedMatrix:
        """Round a matrix of floats to integers times a scale for each row, so that the largest is `MAX_WEIGHT`."""
        scales: Array = np.abs(matrix).max(1) / np.float32(MAX_WEIGHT)
        scales[scales == 0] = 1
        parts, level = divide_columns(np.rint(matrix / scales[:, None]))
        return cls(parts, scales, level, is_bounded)

    def __getitem__(self, rows: slice) -> QuantizedMatrix:
        """Return consecutive rows."""
        key = (rows.start, rows.stop)
        if key not in self.row_slices:
            parts = [part[rows] for part in self.parts]
            self.row_slices[key] = QuantizedMatrix(parts, self.scales[rows], int(self.level), self.is_bounded)
        return self.row_slices[key]

    def multiply(self, x: Array) -> Array:
        """Return the product with each of N vectors, [N, C]: [N, R]."""
        if len(x) == 1 and self.multiply_vector is not None:
            return self.multiply_vector(x)
        if self.is_bounded:
            q = x * self.level
            y = self.sum_products(np.rint(q, out=q))
            y *= self.units
            return y
        scale = np.abs(x).max(1, keepdims=True)
        scale[scale == 0] = 1
        q = x * (self.level / scale)
        y = self.sum_products(np.rint(q, out=q))
        y *= self.units
        y *= scale
        return y

    def sum_products(self, q: Array) -> Array:
        """Return the product with each of N vectors of integers, [N, C]: [N, R]."""
        if len(self.parts) == 1:
            return multiply_exactly(self.parts[0], q)
        y = np.zeros((len(q), len(self.scales)), np.float32)
        for columns, part in zip(self.columns, self.parts, strict=True):
            y += multiply_exactly(part, q[:, columns])
        return y


def multiply_exactly(integers: Array, q: Array) -> Array:
    """Return the product of a matrix of integers [R, C] with each of N vectors of integers, [N, C]: [N, R]."""
    if len(q) < MIN_TOGETHER:
        return multiply_one_by_one(integers, q)
    return multiply_together(integers, q)


def multiply_one_by_one(matrix: Array, x: Array) -> Array:
    """Return the product of a matrix [R, C] with each of N vectors, [N, C]: [N, R]."""
    with np.errstate(invalid="ignore"):  # as below
        if len(x) == 1:
            return np.asarray(matrix.dot(x[0])[None], np.float32)  # a microsecond faster, and the same to the last bit
        y: Array = np.matmul(matrix, x[:, :, None])[:, :, 0]
        return y


def multiply_together(matrix: Array, x: Array) -> Array:
    """Return the product of a matrix [R, C] with N vectors at once, [N, C]: [N, R].

    Without NumPy's warning of invalid values: kernels of OpenBLAS raise its flag for some finite matrices, too
    (https://github.com/numpy/numpy/issues/24067). Weights are finite, which is checked when a model is read.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(x @ matrix.T, np.float32)


def divide_columns(integers: Array) -> tuple[list[Array], int]:
    """Return a matrix of integers in parts of consecutive columns, and the largest integer that a vector may have.

    The products of a part are then exact. There are as few parts as leave a largest integer of `MIN_LEVEL`.
    """
    for count in range(1, integers.shape[1] + 1):
        parts = [np.ascontiguousarray(part) for part in np.array_split(integers, count, 1)]
        largest_sum = max(int(np.abs(part).sum(1).max()) for part in parts)
        level = min(MAX_EXACT // max(largest_sum, 1), MAX_LEVEL)
        if level >= MIN_LEVEL:
            break
    return parts, level


Matrix: TypeAlias = "Array | QuantizedMatrix"


def matvec(matrix: Matrix, x: Array) -> Array:
    """Return `matrix @ x` for each of N vectors: [R, C] and [N, C] give [N, R]. Every weight matrix is applied here.

    Floats are multiplied vector by vector up to `MAX_ROWWISE`, so that a row of the result does not depend on the
    others. More of them, as in infilling, take one matrix product, which is faster.
    """
    if isinstance(matrix, QuantizedMatrix):
        return matrix.multiply(x)
    if len(x) > MAX_ROWWISE:
        return multiply_together(matrix, x)
    return multiply_one_by_one(matrix, x)
