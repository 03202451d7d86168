"""Weights in fewer bits, for a file: float16, or 8-bit integers with a scale for each row of a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm.matrices import MAX_WEIGHT, Array
from charlstm.sampling.network import Network
from charlstm.sampling.quantization import mean_loss
from charlstm.storage.model import ModelFile, round_to_half
from charlstm.vocabulary import Ids

Precision = Literal["fp32", "fp16", "int8"]


class StoredWeight(NamedTuple):
    """A weight as a file stores it: floats, or integers with the scale of each row [R, 1]."""

    values: NDArray[Any]
    scales: Array | None = None

    @property
    def floats(self) -> Array:
        """The weight that a program computes with."""
        floats = self.values.astype(np.float32)
        return floats if self.scales is None else floats * self.scales


def store_weight(name: str, weight: Array, precision: Precision) -> StoredWeight:
    """Return a weight in this precision. Of 8-bit weights, vectors such as biases stay float32.

    Raises CharlstmError for a weight that float16 cannot represent.
    """
    if precision == "fp16":
        return StoredWeight(round_to_half(name, weight))
    if precision == "fp32" or weight.ndim != 2:
        return StoredWeight(weight)
    scales = np.abs(weight).max(1, keepdims=True) / np.float32(MAX_WEIGHT)
    scales[scales == 0] = 1
    return StoredWeight(np.rint(weight / scales).astype(np.int8), scales)


def round_weights(weights: Mapping[str, Array], precision: Precision) -> dict[str, Array]:
    """Return the weights that a program computes with when they are stored in this precision."""
    return {name: store_weight(name, weight, precision).floats for name, weight in weights.items()}


def measure_rounding(half: ModelFile, precision: Precision, places: Ids) -> float:
    """Return the loss of a model of one direction with rounded weights minus that with float32, in nats per symbol.

    places: symbols at several places of a text, in the order in which the model reads them [T, N].
    """
    end_of_document, config = half.vocabulary.end_of_document, half.config.model
    losses = [
        mean_loss(Network(config, weights, end_of_document), places)
        for weights in (round_weights(half.weights, precision), half.weights)
    ]
    return losses[0] - losses[1]
