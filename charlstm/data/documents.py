"""A corpus's text in numbers, with a boundary after each document where the text is one of documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from charlstm.data.text import CorpusReader
from charlstm.vocabulary import END_OF_DOCUMENT, Codes, Text, code_points

NEWLINE_CODE = ord("\n")
FILE_END = b"\xff"
"""Stands in no UTF-8, so that a text in two files is another one than the same in one, where that matters."""


def read_codes(reader: CorpusReader, on_text: Callable[[Text], None] = lambda text: None) -> Iterator[Codes]:
    """The codes of the text, [n] at a time. `hear` is told the text itself, and where each file of documents ends."""
    config = reader.config
    if config.document == "stream":
        yield from (to_codes(chunk) for chunk in tee_chunks(reader.read_chunks(), on_text))
        return
    cut = end_lines if config.document == "line" else end_file
    for file in reader.files:
        yield from cut(
            (to_codes(chunk) for chunk in tee_chunks(reader.read_file(file), on_text)), END_OF_DOCUMENT[config.level]
        )
        on_text(FILE_END)


def tee_chunks(chunks: Iterable[Text], on_text: Callable[[Text], None]) -> Iterator[Text]:
    for chunk in chunks:
        on_text(chunk)
        yield chunk


def to_codes(text: Text) -> Codes:
    return code_points(text) if isinstance(text, str) else np.frombuffer(text, np.uint8)


def end_lines(chunks: Iterable[Codes], boundary: int) -> Iterator[Codes]:
    """Each line with a boundary for its newline; lines with nothing in them are left out."""
    ended = True
    for chunk in chunks:
        found = widen(chunk)
        found[found == NEWLINE_CODE] = boundary
        ends = found == boundary
        found = found[~(ends & np.concatenate([[ended], ends[:-1]]))]
        ended = bool(ends[-1])
        yield found
    if not ended:
        yield np.array([boundary], np.uint16)


def end_file(chunks: Iterable[Codes], boundary: int) -> Iterator[Codes]:
    """All of it, without a newline at its very end, and a boundary; nothing where it is empty."""
    held = np.empty(0, np.uint8)
    begun = False
    for chunk in chunks:
        found = np.concatenate([held, chunk])
        cut = len(found) - int(found[-1] == NEWLINE_CODE)
        yield found[:cut]
        held, begun = found[cut:], begun or cut > 0
    if begun:
        yield np.array([boundary], np.uint16)


def widen(codes: Codes) -> Codes:
    """A copy in a type that holds a boundary too."""
    return codes.astype(np.promote_types(codes.dtype, np.uint16))
