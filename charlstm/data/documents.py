"""The text of a corpus as codes, with the end-of-document code after each document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from charlstm.data.records import join_values
from charlstm.data.text import CorpusReader
from charlstm.vocabulary import END_OF_DOCUMENT, Codes, Text, code_points

NEWLINE_CODE = ord("\n")
FILE_END = b"\xff"
"""Passed to `on_text` after each file of documents and each record. This byte does not occur in UTF-8, so a text in
two files has another fingerprint than the same text in one file."""


def read_codes(reader: CorpusReader, on_text: Callable[[Text], None] = lambda text: None) -> Iterator[Codes]:
    """Read the codes of the text in chunks [n].

    `on_text` is called with each chunk of text and, with documents, with `FILE_END` after each file or record.
    """
    config = reader.config
    if config.reads_records:
        for file in reader.files:
            yield from mark_records(tee_records(reader.read_records(file), on_text))
        return
    if config.document == "stream":
        yield from (to_codes(chunk) for chunk in tee_chunks(reader.read_chunks(), on_text))
        return
    mark = mark_lines if config.document == "line" else mark_file
    for file in reader.files:
        yield from mark(
            (to_codes(chunk) for chunk in tee_chunks(reader.read_file(file), on_text)), END_OF_DOCUMENT[config.level]
        )
        on_text(FILE_END)


def tee_chunks(chunks: Iterable[Text], on_text: Callable[[Text], None]) -> Iterator[Text]:
    for chunk in chunks:
        on_text(chunk)
        yield chunk


def tee_records(values: Iterable[str], on_text: Callable[[Text], None]) -> Iterator[str]:
    """Pass on each value with a newline, which its end of document replaces in sizes."""
    for value in values:
        on_text(value + "\n")
        on_text(FILE_END)
        yield value


def mark_records(values: Iterable[str]) -> Iterator[Codes]:
    """Encode each value, followed by the end of a document."""
    return map(code_points, join_values(values, chr(END_OF_DOCUMENT["char"])))


def to_codes(text: Text) -> Codes:
    return code_points(text) if isinstance(text, str) else np.frombuffer(text, np.uint8)


def mark_lines(chunks: Iterable[Codes], end: int) -> Iterator[Codes]:
    """Replace each newline by the code `end`, add it to an unfinished last line, and drop empty lines."""
    ended = True
    for chunk in chunks:
        codes = widen(chunk)
        codes[codes == NEWLINE_CODE] = end
        ends = codes == end
        codes = codes[~(ends & np.concatenate([[ended], ends[:-1]]))]
        ended = bool(ends[-1])
        yield codes
    if not ended:
        yield np.array([end], np.uint16)


def mark_file(chunks: Iterable[Codes], end: int) -> Iterator[Codes]:
    """Replace the newline at the end of a file by the code `end`, or append it. An empty file yields no codes."""
    pending = np.empty(0, np.uint8)  # a newline that may be the last character of the file
    empty = True
    for chunk in chunks:
        codes = np.concatenate([pending, chunk])
        cut = len(codes) - int(codes[-1] == NEWLINE_CODE)
        yield codes[:cut]
        pending, empty = codes[cut:], empty and not cut
    if not empty:
        yield np.array([end], np.uint16)


def widen(codes: Codes) -> Codes:
    """Copy the codes into a type that can hold the end-of-document code."""
    return codes.astype(np.promote_types(codes.dtype, np.uint16))
