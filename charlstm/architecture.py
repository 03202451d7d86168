"""Names, shapes and sizes of the weights of a model."""

from __future__ import annotations

import numpy as np

from charlstm.cells import CELLS
from charlstm.config import Direction, ModelConfig

EMBEDDING = "embedding.weight"


BACKWARD = "backward."


def full_name(name: str, direction: Direction) -> str:
    """What a weight of one direction is called in a file of both."""
    return name if direction == "forward" or name == EMBEDDING else BACKWARD + name


def weight_shapes(config: ModelConfig, size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a model with this many symbols.

    A bidirectional model is the forward one, under the names it would have alone; the backward one, which has the
    embedding in common with it, under the same after `backward.`; and the joint head, which reads both.
    """
    read = config.hidden * (config.layers if config.head == "all" else 1)
    embedding = {EMBEDDING: (size, config.embedding)}
    half = {**stack_shapes(config), **head_shapes(config, size, read, "head", "projection")}
    if not config.bidirectional:
        return {**embedding, **half}
    other = {BACKWARD + name: shape for name, shape in half.items()}
    mix = {"joint.mix.weight": (config.joint_width, 2 * read), "joint.mix.bias": (config.joint_width,)}
    joint = head_shapes(config, size, config.joint_width, "joint", "joint.projection")
    return {**embedding, **half, **other, **mix, **joint}


def stack_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    cell = CELLS[config.cell]
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(config.layers):
        inputs = config.hidden if layer else config.embedding
        expected |= {f"layers.{layer}.{name}": shape for name, shape in cell.shapes(inputs, config.hidden).items()}
        if layer and config.between == "highway":
            expected[f"highways.{layer}.weight"] = (config.hidden, config.hidden)
            expected[f"highways.{layer}.bias"] = (config.hidden,)
    return expected


def head_shapes(config: ModelConfig, size: int, read: int, head: str, projection: str) -> dict[str, tuple[int, ...]]:
    """Of what predicts from `read` numbers. Tied, it goes by way of the embedding's own rows."""
    expected: dict[str, tuple[int, ...]] = {f"{head}.bias": (size,)}
    if config.head != "tied":
        expected[f"{head}.weight"] = (size, read)
    elif config.embedding != read:
        expected[f"{projection}.weight"] = (config.embedding, read)
    return expected


def count_parameters(config: ModelConfig, size: int) -> int:
    """Numbers in the weights of a model with this many symbols."""
    return sum(int(np.prod(shape)) for shape in weight_shapes(config, size).values())


def vocabulary_share(config: ModelConfig, size: int) -> float:
    """The share of the weights that are there once for each symbol: embedding and head."""
    return 1 - count_parameters(config, 0) / count_parameters(config, size)
