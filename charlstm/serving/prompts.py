"""Prompts as texts or as tokens: the ids of a model's symbols, and one token for the start of a text.

Programs that work with tokens get them from /tokenize, as from vLLM.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from charlstm.config import UnknownPolicy
from charlstm.serving.errors import ApiError
from charlstm.serving.models import ServedModel
from charlstm.serving.offsets import find_prompt_offsets
from charlstm.serving.parameters import MAX_PROMPT_LENGTH, Fields, check_tokens
from charlstm.vocabulary import Vocabulary

START = "<|endoftext|>"
"""The name of the start of a text in /tokenizer_info. A text that is nothing else has its token."""


@dataclass(frozen=True)
class Prompt:
    """What a model reads after BOS."""

    text: str
    """As it was sent, or the characters of its tokens."""
    ids: list[int]
    """The symbols, without BOS."""
    starts: bool = False
    """Whether the first token, which is not in `ids`, is the start of a text."""
    tokens: bool = False

    @property
    def count(self) -> int:
        """The tokens, as they are counted and echoed."""
        return len(self.ids) + self.starts

    def find_offsets(self, model: ServedModel, unknown: UnknownPolicy) -> list[int]:
        """Return the offset in the text of each symbol."""
        if not self.tokens:
            return find_prompt_offsets(self.text, model, unknown)
        offsets, decoder = [0], getincrementaldecoder("utf-8")("replace")
        for i in self.ids:
            offsets.append(offsets[-1] + len(decoder.decode(model.vocabulary.symbols[i])))
        return offsets[:-1]


def parse_prompt(
    prompt: str | Sequence[int], model: ServedModel, unknown: UnknownPolicy, param: str = "prompt"
) -> Prompt:
    """Return a prompt as a model reads it. Raises ApiError, which names the field, for what the model does not know."""
    if isinstance(prompt, str):
        return Prompt(prompt, model.encode(prompt, unknown, param))
    start, size = find_start_token(model.vocabulary), model.vocabulary.size
    starts = list(prompt[:1]) == [start]
    ids = list(prompt[starts:])
    unknown_token = next((token for token in ids if not 0 <= token < size), None)
    if unknown_token is not None:
        raise ApiError(
            f"{param} has the token {unknown_token}; {model.name} has 0 to {size - 1}, and {start} at the start",
            param=param,
            code="unknown_tokens",
        )
    return Prompt(model.vocabulary.decode(ids).decode("utf-8", "replace"), ids, starts, tokens=True)


def find_start_token(vocabulary: Vocabulary) -> int:
    """Return the token of the start of a text: the end of a document, or else the number after the last symbol."""
    return vocabulary.size if vocabulary.end_of_document is None else vocabulary.end_of_document


def describe_tokenizer(model: ServedModel) -> dict[str, Any]:
    """Return the answer of /tokenizer_info."""
    return {
        "tokenizer_class": "charlstm",
        "model": model.name,
        "level": model.vocabulary.level,
        "bos_token": START,
        "eos_token": START,
        "model_max_length": MAX_PROMPT_LENGTH,
    }


def tokenize(values: Mapping[str, Any], model: ServedModel) -> dict[str, Any]:
    """Return the answer of /tokenize. Raises ApiError."""
    fields = Fields(values)
    if "prompt" not in fields:
        raise ApiError("prompt is missing", param="prompt")
    text, unknown = fields.get_text("prompt"), fields.get_unknown()
    start = find_start_token(model.vocabulary)
    tokens = [start] if text == START else model.encode(text, unknown, "prompt")
    return {"count": len(tokens), "max_model_len": MAX_PROMPT_LENGTH, "tokens": tokens}


def detokenize(values: Mapping[str, Any], model: ServedModel) -> dict[str, Any]:
    """Return the answer of /detokenize. The token for the start of a text adds no characters. Raises ApiError."""
    return {"prompt": parse_prompt(check_tokens("tokens", values.get("tokens")), model, "error", "tokens").text}
