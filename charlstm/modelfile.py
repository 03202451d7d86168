"""The model file: configuration, vocabulary and weights in one .safetensors file, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.cells import CELLS
from charlstm.config import Config, Direction, ModelConfig
from charlstm.errors import ModelFileError, UsageError
from charlstm.settings import from_tree, resolve
from charlstm.tensorfile import read_tensors, write_tensors
from charlstm.vocabulary import Vocabulary, vocabulary_from_dict

FORMAT = 1

EMBEDDING = "embedding.weight"


@dataclass(frozen=True)
class ModelFile:
    """All that a trained model is."""

    config: Config
    vocabulary: Vocabulary
    weights: Mapping[str, NDArray[np.float32]]
    corpus: Mapping[str, Any] = field(default_factory=dict)  # fingerprint and size of the text it was trained on
    figures: Mapping[str, Any] = field(default_factory=dict)  # its own: step, validation loss, ...

    def save(self, path: Path) -> None:
        """Writes the file whole or not at all. Raises CharlstmError if it cannot."""
        document = {
            "format": FORMAT,
            "config": self.config.to_dict(),
            "vocabulary": self.vocabulary.to_dict(),
            "corpus": dict(self.corpus),
            "figures": dict(self.figures),
        }
        write_tensors(path, self.weights, document)

    @classmethod
    def load(cls, path: Path) -> ModelFile:
        """Raises ModelFileError for a file that is damaged, too new, or at odds with itself."""
        weights, document = read_tensors(path)
        if document.get("format", 0) != FORMAT:
            raise ModelFileError(
                f"{path} has format {document.get('format')!r} and this charlstm reads {FORMAT}",
                "a newer charlstm may read it",
            )
        try:
            config = resolve(from_tree(document["config"], path.name))
            b"a".decode(config.data.encoding, "replace")  # raises LookupError where there is no such encoding
            vocabulary = vocabulary_from_dict(document["vocabulary"])
            model = cls(config, vocabulary, weights, dict(document["corpus"]), dict(document["figures"]))
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, UsageError) as error:
            raise ModelFileError(f"{path} is not a charlstm model file: {error}") from error
        check_shapes(model, path)
        return model

    def half(self, direction: Direction) -> ModelFile:
        """One direction of a bidirectional model, as a model of its own; the backward one reads texts from their end.

        Raises UsageError where there is no backward one.
        """
        if not self.config.model.bidirectional:
            if direction == "backward":
                raise UsageError(
                    "--direction backward: the model reads forwards only", "charlstm train --bidirectional makes both"
                )
            return self
        alone = replace(self.config, model=replace(self.config.model, bidirectional=False))
        names = shapes(alone.model, self.vocabulary.size)
        return replace(self, config=alone, weights={name: self.weights[whole(name, direction)] for name in names})

    def with_half(self, direction: Direction, weights: Mapping[str, NDArray[np.float32]]) -> ModelFile:
        """The same with other weights for one direction, under the names that they have in a model of its own."""
        return replace(self, weights={**self.weights, **{whole(name, direction): w for name, w in weights.items()}})


BACKWARD = "backward."


def whole(name: str, direction: Direction) -> str:
    """What a weight of one direction is called in a file of both."""
    return name if direction == "forward" or name == EMBEDDING else BACKWARD + name


def shapes(config: ModelConfig, size: int) -> dict[str, tuple[int, ...]]:
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
    return sum(int(np.prod(shape)) for shape in shapes(config, size).values())


def share_of_symbols(config: ModelConfig, size: int) -> float:
    """The share of the weights that are there once for each symbol: embedding and head."""
    return 1 - count_parameters(config, 0) / count_parameters(config, size)


def check_shapes(model: ModelFile, path: Path) -> None:
    expected = shapes(model.config.model, model.vocabulary.size)
    found = {name: tensor.shape for name, tensor in model.weights.items()}
    if found != expected or any(tensor.dtype != np.float32 for tensor in model.weights.values()):
        raise ModelFileError(f"{path} holds weights that do not fit its own configuration")
    if not all(np.isfinite(tensor).all() for tensor in model.weights.values()):
        raise ModelFileError(f"{path} holds weights that are not finite numbers")
