"""Where in a prompt the symbols are that the model reads: normalization and skipped characters move them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from charlstm.config import DataConfig, UnknownPolicy
from charlstm.data.normalize import never_combines, normalize_text
from charlstm.serving.models import ServedModel


def find_prompt_offsets(text: str, model: ServedModel, unknown: UnknownPolicy) -> list[int]:
    """Return the offset in a text of each symbol that `ServedModel.encode` returns for it."""
    config = model.file.config.data
    if config.level == "byte":
        return [offset for offset, character in enumerate(text) for _ in character.encode()]
    offsets = locate_characters(text, config)
    if unknown == "skip":
        codes = model.vocabulary.codes(normalize_text(text, config))
        offsets = np.array(offsets, np.int64)[model.vocabulary.lookup_codes(codes) >= 0].tolist()
    return offsets


def locate_characters(text: str, config: DataConfig) -> list[int]:
    """Return the offset in a text of each character of the normalized text."""
    normalized = normalize_text(text, config)
    if normalized == text or (text.isascii() and len(normalized) == len(text)):
        return list(range(len(text)))  # at once: the rest takes seconds for a million characters
    offsets: list[int] = []
    for start, piece in split_text(text):
        last = start + len(piece) - 1
        offsets += (min(start + k, last) for k in range(len(normalize_text(piece, config))))
    return offsets


def split_text(text: str) -> Iterator[tuple[int, str]]:
    """Yield the shortest pieces of a text that are normalized independently, each with its offset.

    The lower case of a sigma depends on the letters around it, but its length does not.
    """
    start = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or (never_combines(text[at]) and text[at - 1 : at + 1] != "\r\n"):
            yield start, text[start:at]
            start = at
