"""The weights of a model: one table of their names in a file, their paths in the torch module and their shapes.

In the shapes, V is the number of symbols, E the width of the embedding, K the rows for pairs of symbols, H the hidden
units, R the inputs of a head (H, or layers * H where the head reads all layers) and J the units that join both
directions.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from charlstm.cells import CELLS
from charlstm.config import Direction, ModelConfig


class Weight(NamedTuple):
    """One weight of a model."""

    name: str  # in a model file
    torch_name: str  # path of the parameter in the torch module
    shape: tuple[int, ...]
    per_symbol: bool = False  # whether it has one row per symbol of the vocabulary


class HeadNames(NamedTuple):
    """Names of the weights of an output head in a model file. A tied head has the embedding for its weight."""

    weight: str
    bias: str
    projection: str  # of a tied head only, where R != E
    mix_weight: str = ""  # of the joint head only
    mix_bias: str = ""


EMBEDDING = "embedding.weight"
BIGRAMS = "bigrams.weight"
HEAD = HeadNames("head.weight", "head.bias", "projection.weight")
JOINT_HEAD = HeadNames("joint.weight", "joint.bias", "joint.projection.weight", "joint.mix.weight", "joint.mix.bias")
BACKWARD_PREFIX = "backward."

TORCH_CELLS = ("lstm", "gru", "rnn")
"""Cells whose layers are modules of `torch.nn`, which end the names of their parameters in `_l0`."""


def list_weights(config: ModelConfig, vocabulary_size: int) -> list[Weight]:
    """Return the table: every weight of a model with this many symbols.

    A bidirectional model has one embedding, the layers and the head twice, and a joint head. The forward weights have
    the names that they have in a model of one direction, so that every forward model is read in the same way.
    """
    head_inputs = config.hidden * (config.layers if config.head == "all" else 1)
    embedding = Weight(EMBEDDING, EMBEDDING, (vocabulary_size, config.embedding), per_symbol=True)
    head = list_head_weights(config, vocabulary_size, head_inputs, HEAD, torch_projection="head.projection.weight")
    bigrams = [Weight(BIGRAMS, BIGRAMS, (config.bigrams, config.embedding))] if config.bigrams else []
    direction = [*bigrams, *list_layer_weights(config), *head]
    if not config.bidirectional:
        return [embedding, *direction]
    width = config.joint_width
    return [
        embedding,
        *(weight._replace(torch_name=f"forward_lm.{weight.torch_name}") for weight in direction),
        *(
            weight._replace(name=qualify_name(weight.name, "backward"), torch_name=f"backward_lm.{weight.torch_name}")
            for weight in direction
        ),
        Weight(JOINT_HEAD.mix_weight, JOINT_HEAD.mix_weight, (width, 2 * head_inputs)),
        Weight(JOINT_HEAD.mix_bias, JOINT_HEAD.mix_bias, (width,)),
        *list_head_weights(config, vocabulary_size, width, JOINT_HEAD, torch_projection=JOINT_HEAD.projection),
    ]


def list_layer_weights(config: ModelConfig) -> list[Weight]:
    """Return the weights of the recurrent layers and of the highway connections around them."""
    suffix = "_l0" if config.cell in TORCH_CELLS else ""
    weights = []
    for layer in range(config.layers):
        inputs = config.hidden if layer else config.embedding
        for name, shape in CELLS[config.cell].shapes(inputs, config.hidden).items():
            torch_name = f"stack.layers.{layer}.core.{name}{suffix}"
            weights.append(Weight(layer_weight_name(layer, name), torch_name, shape))
        if layer and config.between == "highway":
            for name, shape in {"weight": (config.hidden, config.hidden), "bias": (config.hidden,)}.items():
                weights.append(Weight(highway_name(layer, name), f"stack.highways.{layer}.{name}", shape))
    return weights


def list_head_weights(
    config: ModelConfig, vocabulary_size: int, inputs: int, names: HeadNames, torch_projection: str
) -> list[Weight]:
    """Return the weights of a head with this many inputs. A tied head multiplies with the embedding instead."""
    bias = Weight(names.bias, names.bias, (vocabulary_size,), per_symbol=True)
    if config.head != "tied":
        return [bias, Weight(names.weight, names.weight, (vocabulary_size, inputs), per_symbol=True)]
    if config.embedding != inputs:
        return [bias, Weight(names.projection, torch_projection, (config.embedding, inputs))]
    return [bias]


def layer_weight_name(layer: int, name: str) -> str:
    """Return the file name of a layer's weight; `name` is a key of `Cell.shapes`."""
    return f"layers.{layer}.{name}"


def highway_name(layer: int, name: str) -> str:
    """Return the file name of the `weight` or `bias` of the highway connection around a layer."""
    return f"highways.{layer}.{name}"


def qualify_name(name: str, direction: Direction) -> str:
    """Return the name, in the file of a bidirectional model, of a weight of one of its directions."""
    return name if direction == "forward" or name == EMBEDDING else BACKWARD_PREFIX + name


def weight_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by its name in a model file."""
    return {weight.name: weight.shape for weight in list_weights(config, vocabulary_size)}


def names_by_torch_name(config: ModelConfig) -> dict[str, str]:
    """Return the name in a model file of every parameter of the torch module, by the parameter's path."""
    return {weight.torch_name: weight.name for weight in list_weights(config, 1)}


def names_per_symbol(config: ModelConfig) -> set[str]:
    """Return the file names of the weights that have one row per symbol of the vocabulary."""
    return {weight.name for weight in list_weights(config, 1) if weight.per_symbol}


def count_parameters(config: ModelConfig, vocabulary_size: int) -> int:
    """Return how many parameters a model with this many symbols has."""
    return sum(prod(weight.shape) for weight in list_weights(config, vocabulary_size))


def describe_architecture(config: ModelConfig) -> str:
    """Return the cell, the layers and the units, as "lstm 2x512" or "bidirectional lstm 2x512"."""
    direction = "bidirectional " if config.bidirectional else ""
    return f"{direction}{config.cell} {config.layers}x{config.hidden}"


def count_recurrent_weights(config: ModelConfig) -> int:
    """Return the weights of the recurrent layers of one direction."""
    return sum(prod(weight.shape) for weight in list_layer_weights(config))


BIGRAM_FACTOR = 1_000_003
"""A prime by which the rows of the pairs with one symbol are spread over the table."""


def bigram_row(before: Any, ids: Any, rows: int) -> Any:
    """Return the rows for pairs of symbols, given arrays or tensors: the symbol before, plus 1, and the current id."""
    return (before * BIGRAM_FACTOR + ids) % rows


def vocabulary_share(config: ModelConfig, vocabulary_size: int) -> float:
    """Return the share of the parameters that belong to single symbols: embedding and output weights."""
    return 1 - count_parameters(config, 0) / count_parameters(config, vocabulary_size)
