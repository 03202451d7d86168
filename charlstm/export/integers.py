"""The weights of a model as integers in one block of bytes, with a table that says where each is."""

from __future__ import annotations

from typing import Any

import numpy as np

from charlstm.architecture import BIGRAMS, EMBEDDING, layer_weight_name, weight_shapes
from charlstm.matrices import Array
from charlstm.storage.model import ModelFile

TWO_BYTE_NAMES = {EMBEDDING, BIGRAMS, layer_weight_name(0, "weight_ih")}
"""Weights of two bytes: they are few, and their errors would enter at every step. Those of other matrices have one."""


class WeightTable:
    """Arrays in a block of bytes.

    entries: for each array its place, rows and columns; for a matrix, also the bytes per weight. A matrix begins with a
        float32 scale per row; then comes the higher byte of every weight, then the lower one, if any. A vector is
        float32.
    """

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, int]] = {}
        self.block = bytearray()

    def add_vector(self, name: str, vector: Array) -> None:
        self.entries[name] = {"at": len(self.block), "rows": 1, "columns": vector.size}
        self.block += vector.astype("<f4").tobytes()

    def add_matrix(self, name: str, matrix: Array, width: int) -> None:
        """Add a matrix, [R, C], rounded to integers of `width` bytes."""
        rows, columns = matrix.shape
        integers, scales = round_rows(matrix, 2 ** (8 * width - 1) - 1)
        planes = np.moveaxis(integers.astype(f">i{width}").view(np.uint8).reshape(rows, columns, width), 2, 0)
        self.entries[name] = {"at": len(self.block), "rows": rows, "columns": columns, "bytes": width}
        self.block += scales.astype("<f4").tobytes() + planes.tobytes()


def round_rows(matrix: Array, largest: int) -> tuple[np.ndarray[Any, np.dtype[np.int32]], Array]:
    """Return a matrix as integers and a scale for each row, with which the largest integer of the row is `largest`."""
    scales: Array = np.abs(matrix).max(1) / np.float32(largest)
    scales[scales == 0] = 1
    return np.rint(matrix / scales[:, None]).clip(-largest, largest).astype(np.int32), scales


def tabulate_weights(half: ModelFile) -> WeightTable:
    """Return the weights of a model of one direction."""
    table = WeightTable()
    for name in weight_shapes(half.config.model, half.vocabulary.size):
        weight = half.weights[name]
        if weight.ndim == 1:
            table.add_vector(name, weight)
        else:
            table.add_matrix(name, weight, 2 if name in TWO_BYTE_NAMES else 1)
    return table
