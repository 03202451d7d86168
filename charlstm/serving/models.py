"""The models of a server, each with its batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from charlstm.architecture import describe_architecture
from charlstm.config import SamplingConfig, UnknownPolicy
from charlstm.data.normalize import normalize_text
from charlstm.errors import UsageError
from charlstm.infilling.filler import Filler
from charlstm.serving.batch import StepBatch
from charlstm.serving.errors import ApiError
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel


class ServedModel:
    """A model under the name by which requests choose it.

    weights: those to sample with: "auto", "int8" or "fp32".
    """

    def __init__(self, name: str, path: Path, weights: str) -> None:
        self.name, self.created = name, int(path.stat().st_mtime)
        self.model = TextModel(ModelFile.load(path))
        self.file, self.vocabulary = self.model.file, self.model.vocabulary
        self.weights = self.model.choose_weights(SamplingConfig(weights=weights))
        self.scoring = StepBatch(self.model.network, self.vocabulary)
        """Reads texts whose log-probabilities are asked for: those of `charlstm eval` are of the exact weights."""
        self.sampling = self.scoring
        if self.weights == "int8":
            self.sampling = StepBatch(self.model.quantized_network, self.vocabulary)

    @property
    def batches(self) -> Iterator[StepBatch]:
        """The batches, of which there is one if the exact weights are sampled with."""
        yield self.scoring
        if self.sampling is not self.scoring:
            yield self.sampling

    @property
    def default_length(self) -> int:
        """Characters that are written if a request does not limit them, as by `charlstm sample`."""
        return self.file.default_length

    @cached_property
    def token_names(self) -> list[str]:
        """Each symbol as text. A byte that is not text is named as OpenAI's servers do: bytes:\\xNN."""
        return [name_token(symbol) for symbol in self.vocabulary.symbols]

    @cached_property
    def filler(self) -> Filler:
        """Fills gaps, with networks of its own: another thread uses them."""
        return Filler(self.file, 0)

    def encode(self, text: str, unknown: UnknownPolicy, param: str) -> list[int]:
        """Return the ids of a text. Raises ApiError, which names the field, for a character that is not known."""
        normalized = normalize_text(text, self.file.config.data)
        try:
            ids: list[int] = self.vocabulary.encode(normalized, unknown).tolist()
        except UsageError as error:
            codes = self.vocabulary.codes(normalized)
            missing = dict.fromkeys(codes[self.vocabulary.lookup_codes(codes) < 0].tolist())
            raise ApiError(
                f'{error.message}; "unknown": "skip" or "replace" accepts such characters',
                param=param,
                code="unknown_characters",
                details={"characters": "".join(map(chr, missing))},
            ) from error
        return ids

    @property
    def title(self) -> str:
        """What the model is, in a few words."""
        return f"{describe_architecture(self.file.config.model)}, {self.weights}"

    def describe(self) -> dict[str, object]:
        """Return the entry of /v1/models."""
        model = self.file.config.model
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "charlstm",
            "cell": model.cell,
            "layers": model.layers,
            "hidden": model.hidden,
            "bidirectional": model.bidirectional,
            "level": self.vocabulary.level,
            "vocabulary": self.vocabulary.size,
            "weights": self.weights,
        }


def name_token(symbol: bytes) -> str:
    try:
        return symbol.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{value:02x}" for value in symbol)


def choose_model(models: Mapping[str, ServedModel], name: str | None) -> ServedModel:
    """Return the model of this name, or the first one. Raises ApiError if there is none of this name."""
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise ApiError(
            f"there is no model {name!r}; there is {', '.join(models)}",
            status=404,
            param="model",
            code="model_not_found",
        )
    return models[name]
