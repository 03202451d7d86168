"""The model file: settings, vocabulary and weights in one .safetensors file, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charlstm.architecture import qualify_name, weight_shapes
from charlstm.config import DOCUMENT_LENGTH, MAX_QUANTIZATION_LOSS, Config, DataConfig, Direction, SamplingConfig
from charlstm.errors import CharlstmError, ModelFileError, UsageError
from charlstm.settings import from_dict, resolve
from charlstm.storage.locate import BEST, LAST, STDIN
from charlstm.storage.tensors import (
    Tensors,
    check_format,
    read_document,
    read_tensors,
    serialize_tensors,
    write_tensors,
)
from charlstm.vocabulary import Vocabulary, vocabulary_from_dict

MODEL_FORMAT = 2
HALF_MODEL_FORMAT = 3
"""Format of files whose weights are float16. Older versions of charlstm still read files with float32 weights."""

READABLE_MODEL_FORMATS = (1, MODEL_FORMAT, HALF_MODEL_FORMAT)
"""Format 1 has the metrics under `figures`, and some settings and keys under older names."""

StoredWeights = Literal["fp32", "fp16"]
"""How the weights are stored in a file. In memory they are float32."""

MAX_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class ModelFile:
    """The content of a model file: everything that a trained model is."""

    config: Config
    vocabulary: Vocabulary
    weights: Mapping[str, NDArray[np.float32]]
    corpus: Mapping[str, Any] = field(default_factory=dict)  # fingerprint and size of the text it was trained on
    metrics: Mapping[str, Any] = field(default_factory=dict)  # of the model itself: step, validation loss, ...
    version: str = ""  # of charlstm that trained it; older files do not have it

    @classmethod
    def load(cls, path: Path) -> ModelFile:
        """Read a model file. Raises ModelFileError if it is damaged, inconsistent or of a newer format."""
        weights, document = read_tensors(path)
        model = cls.from_document(path, weights, document)
        check_weights(model, path, np.float16 if document["format"] == HALF_MODEL_FORMAT else np.float32)
        return replace(model, weights={name: np.asarray(weight, np.float32) for name, weight in weights.items()})

    @classmethod
    def load_header(cls, path: Path) -> ModelFile:
        """Read a model file without its weights, which are not checked. Raises as `load` does."""
        return cls.from_document(path, {}, read_document(path))

    @classmethod
    def from_document(cls, path: Path, weights: Tensors, document: Mapping[str, Any]) -> ModelFile:
        check_kind(path, document)
        check_format(path, document, READABLE_MODEL_FORMATS)
        metrics_key = "figures" if document["format"] == 1 else "metrics"
        try:
            config = resolve(from_dict(document["config"], path.name, for_training=False))
            b"a".decode(config.data.encoding, "replace")  # raises LookupError for an encoding that does not exist
            vocabulary = vocabulary_from_dict(document["vocabulary"])
            corpus, metrics = dict(document["corpus"]), dict(document[metrics_key])
            return cls(config, vocabulary, weights, corpus, metrics, str(document.get("version", "")))
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, UsageError) as error:
            raise ModelFileError(f"{path} is not a charlstm model file: {error}") from error

    def save(self, path: Path, stored: StoredWeights = "fp32") -> None:
        """Replace the file at `path` with this model, as `serialize` returns it. Raises CharlstmError on failure."""
        write_tensors(path, *self.prepare_content(stored))

    def serialize(self, stored: StoredWeights = "fp32") -> list[bytes | memoryview]:
        """Return the bytes of the file in pieces. Raises CharlstmError as `prepare_content` does."""
        return serialize_tensors(*self.prepare_content(stored))

    def prepare_content(self, stored: StoredWeights) -> tuple[Tensors, dict[str, Any]]:
        """Return the weights and the document of the file, without paths of the corpus.

        stored: "fp16" rounds the weights to float16, which halves the file.

        Raises CharlstmError for a weight that float16 cannot represent.
        """
        document = {
            "format": HALF_MODEL_FORMAT if stored == "fp16" else MODEL_FORMAT,
            "config": replace(self.config, data=without_paths(self.config.data)).to_dict(),
            "vocabulary": self.vocabulary.to_dict(),
            "corpus": dict(self.corpus),
            "metrics": dict(self.metrics),
            "version": self.version,
        }
        if stored == "fp16":
            return {name: round_to_half(name, weight) for name, weight in self.weights.items()}, document
        return dict(self.weights), document

    @property
    def default_length(self) -> int:
        """Characters of a sample if nothing limits them: a model of documents normally ends them itself."""
        return SamplingConfig().length if self.vocabulary.end_of_document is None else DOCUMENT_LENGTH

    def choose_weights(self, config: SamplingConfig) -> str:
        """Return the weights to sample with: "int8" or "fp32"."""
        loss = self.metrics.get("quantization_loss_nats", 0.0)  # of an older model or a stopped run, it is not known
        loses = isinstance(loss, float) and loss > MAX_QUANTIZATION_LOSS
        return {"auto": "fp32" if loses else "int8"}.get(config.weights, config.weights)

    def check_same_vocabulary(self, other: ModelFile) -> None:
        """Raise UsageError unless another model has the same symbols, so that their distributions can be averaged."""
        ours, theirs = self.vocabulary, other.vocabulary
        if ours.to_dict() != theirs.to_dict():
            raise UsageError(
                f"--average: that model has {theirs.size} symbols and this one {ours.size}, not all of them the same",
                "average models of the same corpus",
            )

    def select_direction(self, direction: Direction) -> ModelFile:
        """Return one direction of a bidirectional model as a model of its own. The backward one reads from the end.

        Raises UsageError for the backward direction of a model that has only one.
        """
        if not self.config.model.bidirectional:
            if direction == "backward":
                raise UsageError(
                    "--direction backward needs a bidirectional model, and this one reads forward only",
                    "train one with charlstm train --bidirectional",
                )
            return self
        config = replace(self.config, model=replace(self.config.model, bidirectional=False))
        names = weight_shapes(config.model, self.vocabulary.size)
        weights = {name: self.weights[qualify_name(name, direction)] for name in names}
        return replace(self, config=config, weights=weights)

    def with_direction(self, direction: Direction, weights: Mapping[str, NDArray[np.float32]]) -> ModelFile:
        """Return this model with other weights for one direction, given under the names of `select_direction`."""
        qualified = {qualify_name(name, direction): weight for name, weight in weights.items()}
        return replace(self, weights={**self.weights, **qualified})


def without_paths(data: DataConfig) -> DataConfig:
    """Return the settings with the name of each file of the corpus in place of its path, and the pattern for a folder.

    A path, and the name of a folder, can contain the name of a user, and whoever gets the model would read it.
    """
    names = (data.glob if Path(source).is_dir() else Path(source).name for source in data.corpus)
    return replace(data, corpus=tuple(names))


def name_sources(data: DataConfig) -> list[str]:
    """Return the names of the corpus for a reader, as `without_paths` has them: stdin is "stdin"."""
    return ["stdin" if name == STDIN else name for name in without_paths(data).corpus]


def check_kind(path: Path, document: Mapping[str, Any]) -> None:
    """Raise ModelFileError for the training state of a run, with the name of the run's model."""
    if "state" not in document:
        return
    models = [path.with_name(name) for name in (BEST, LAST) if path.with_name(name).exists()]
    hint = f"the model is {models[0]}" if models else f"the model of a run is its {BEST}"
    raise ModelFileError(f"{path} is a training state, which train --resume reads, and not a model", hint)


def check_weights(model: ModelFile, path: Path, dtype: DTypeLike) -> None:
    """Raise ModelFileError unless the weights have this type, and the names and shapes that the settings call for."""
    expected = weight_shapes(model.config.model, model.vocabulary.size)
    found = {name: tensor.shape for name, tensor in model.weights.items()}
    if found != expected or any(tensor.dtype != dtype for tensor in model.weights.values()):
        raise ModelFileError(f"{path} holds weights that do not fit its own configuration")
    if not all(np.isfinite(tensor).all() for tensor in model.weights.values()):
        raise ModelFileError(f"{path} holds weights that are not finite")


def round_to_half(name: str, weight: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return a weight in float16. Raises CharlstmError if it is too large for that."""
    if (largest := np.abs(weight).max()) > MAX_HALF:
        raise CharlstmError(
            f"{name} has a weight of magnitude {largest:,.0f}, and float16 ends at {MAX_HALF:,.0f}",
            "store the weights in float32",
        )
    return weight.astype(np.float16)
