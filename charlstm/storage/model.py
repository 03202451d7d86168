"""The model file: configuration, vocabulary and weights in one .safetensors file, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.architecture import qualify_name, weight_shapes
from charlstm.config import Config, Direction
from charlstm.errors import ModelFileError, UsageError
from charlstm.settings import from_dict, resolve
from charlstm.storage.tensors import read_tensors, write_tensors
from charlstm.vocabulary import Vocabulary, vocabulary_from_dict

MODEL_FORMAT = 2
"""Format 1 had the metrics under `figures`, and older names of some settings."""


@dataclass(frozen=True)
class ModelFile:
    """All that a trained model is."""

    config: Config
    vocabulary: Vocabulary
    weights: Mapping[str, NDArray[np.float32]]
    corpus: Mapping[str, Any] = field(default_factory=dict)  # fingerprint and size of the text it was trained on
    metrics: Mapping[str, Any] = field(default_factory=dict)  # its own: step, validation loss, ...

    def save(self, path: Path) -> None:
        """Writes the file whole or not at all. Raises CharlstmError if it cannot."""
        document = {
            "format": MODEL_FORMAT,
            "config": self.config.to_dict(),
            "vocabulary": self.vocabulary.to_dict(),
            "corpus": dict(self.corpus),
            "metrics": dict(self.metrics),
        }
        write_tensors(path, self.weights, document)

    @classmethod
    def load(cls, path: Path) -> ModelFile:
        """Raises ModelFileError for a file that is damaged, too new, or at odds with itself."""
        weights, document = read_tensors(path)
        if document.get("format", 0) not in (1, MODEL_FORMAT):
            raise ModelFileError(
                f"{path} has format {document.get('format')!r} and this charlstm reads {MODEL_FORMAT}",
                "a newer charlstm may read it",
            )
        try:
            config = resolve(from_dict(document["config"], path.name))
            b"a".decode(config.data.encoding, "replace")  # raises LookupError where there is no such encoding
            vocabulary = vocabulary_from_dict(document["vocabulary"])
            model = cls(
                config,
                vocabulary,
                weights,
                dict(document["corpus"]),
                dict(document["figures" if document["format"] == 1 else "metrics"]),
            )
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, UsageError) as error:
            raise ModelFileError(f"{path} is not a charlstm model file: {error}") from error
        check_weights(model, path)
        return model

    def select_direction(self, direction: Direction) -> ModelFile:
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
        names = weight_shapes(alone.model, self.vocabulary.size)
        return replace(
            self, config=alone, weights={name: self.weights[qualify_name(name, direction)] for name in names}
        )

    def with_direction(self, direction: Direction, weights: Mapping[str, NDArray[np.float32]]) -> ModelFile:
        """The same with other weights for one direction, under the names that they have in a model of its own."""
        return replace(
            self, weights={**self.weights, **{qualify_name(name, direction): w for name, w in weights.items()}}
        )


def check_weights(model: ModelFile, path: Path) -> None:
    expected = weight_shapes(model.config.model, model.vocabulary.size)
    found = {name: tensor.shape for name, tensor in model.weights.items()}
    if found != expected or any(tensor.dtype != np.float32 for tensor in model.weights.values()):
        raise ModelFileError(f"{path} holds weights that do not fit its own configuration")
    if not all(np.isfinite(tensor).all() for tensor in model.weights.values()):
        raise ModelFileError(f"{path} holds weights that are not finite numbers")
