"""From bytes to characters, for every text that is read: corpora, prompts, templates and config files.

A byte order mark at the beginning determines the encoding and is removed. So is one further on, where `cat` joined
files that begin with one.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import IncrementalNewlineDecoder
from typing import Any

from charlstm.errors import CharlstmError

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and the encoding that each identifies.

UTF-32-LE precedes UTF-16-LE, because its mark begins with that of UTF-16-LE.
"""

LONGEST_BOM = 4
"""Bytes."""

MARK, SWAPPED_MARK = "\ufeff", "\ufffe"
"""A byte order mark as a character, and what it is decoded to in the other byte order, which is not a character."""

MARKS_AT_LINE_START = re.compile(f"(?<![^\r\n]){MARK}+")

WITHOUT_SURROGATES = ("utf-8", "utf-16", "utf-32", "ascii", "iso8859-1")
"""Prefixes of encodings whose decoders never produce a lone surrogate, which is not a character."""

SURROGATE = re.compile("[\ud800-\udfff]")

NEWLINE_NAMES = {"\r\n": "CR LF", "\r": "CR"}

CONVERT_HINT = "convert it to UTF-8: iconv -f ENCODING -t UTF-8 FILE"
SEPARATE_HINT = "files of different encodings seem to be joined; give their names instead of joining them"


@dataclass(frozen=True, slots=True)
class Changes:
    """What a decoder changed in a stream, besides removing a byte order mark at its beginning."""

    name: str
    detected_encoding: str
    """The encoding that a byte order mark determined, if it is not the given one."""
    marks_removed: int
    """Byte order marks after the beginning."""
    marks_kept: int
    """U+FEFF that are characters."""
    newlines: tuple[str, ...]
    """The kinds of line endings that were converted, with LF."""


class TextDecoder:
    """Decodes one stream of bytes, in chunks of any size.

    name: what errors call the stream.
    encoding: the encoding of a stream that does not begin with a byte order mark.
    errors: the error handler of Python's codecs.
    newlines: "lf" converts line endings, "keep" does not.
    hint: what to do about bytes that cannot be decoded.
    """

    def __init__(
        self, name: str, encoding: str = "utf-8", errors: str = "strict", newlines: str = "keep", hint: str = ""
    ) -> None:
        self.name, self.encoding, self.errors, self.hint = name, encoding, errors, hint or CONVERT_HINT
        self.head = b""
        self.bytes_decoder: codecs.IncrementalDecoder | None = None  # until the byte order mark could be read
        self.converts_newlines = newlines == "lf"
        self.newline_decoder = IncrementalNewlineDecoder(None, translate=self.converts_newlines)
        self.bytes_read = 0
        self.detected_encoding = ""
        self.begins_with_mark = False
        self.started = False
        self.last_character = ""
        self.marks_removed = self.marks_kept = 0

    @property
    def changes(self) -> Changes:
        """What was changed so far."""
        seen: Any = self.newline_decoder.newlines if self.converts_newlines else None
        newlines = () if seen is None else (seen,) if isinstance(seen, str) else tuple(seen)
        return Changes(self.name, self.detected_encoding, self.marks_removed, self.marks_kept, newlines)

    def decode(self, data: bytes, final: bool = False) -> str:
        """Decode a chunk. Raises CharlstmError, with the name and the offset, for a byte that cannot be decoded."""
        if self.bytes_decoder is None:
            self.head += data
            if len(self.head) < LONGEST_BOM and not final:
                return ""
            self.bytes_decoder = self.detect_encoding(self.head)
            data, self.head = self.head, b""
        text = self.decode_bytes(self.bytes_decoder, data, final)
        return self.newline_decoder.decode(self.remove_marks(text), final)

    def detect_encoding(self, head: bytes) -> codecs.IncrementalDecoder:
        marked = next((encoding for bom, encoding in BOMS if head.startswith(bom)), "")
        if marked:
            self.begins_with_mark = True
            if not codecs.lookup(self.encoding).name.startswith(marked):
                self.detected_encoding = marked
            self.encoding = marked
        self.without_surrogates = codecs.lookup(self.encoding).name.startswith(WITHOUT_SURROGATES)
        return codecs.getincrementaldecoder(self.encoding)(self.errors)

    def decode_bytes(self, decoder: codecs.IncrementalDecoder, data: bytes, final: bool) -> str:
        before = decoder.getstate()

        def offset_of(character: str) -> int:
            return self.bytes_read + find_character(decoder, before, data, character)

        try:
            text = decoder.decode(data, final)
        except UnicodeDecodeError as error:
            rest = error.object[error.start :]  # the object ends where the data ends
            joined = rest.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and self.encoding == "utf-8"
            at = self.bytes_read + len(data) - len(rest)
            raise CharlstmError(
                f"{self.name}: byte 0x{rest[0]:02x} at offset {at} is not {self.encoding}",
                SEPARATE_HINT if joined else self.hint,
            ) from error
        except UnicodeError as error:
            raise CharlstmError(f"{self.name} is not {self.encoding}: {error}") from error
        if not self.without_surrogates and (lone := SURROGATE.search(text)):
            raise CharlstmError(
                f"{self.name}: the surrogate U+{ord(lone[0]):04X} at offset {offset_of(lone[0])} is not a character"
            )
        if SWAPPED_MARK in text and self.encoding.startswith("utf-16"):
            raise CharlstmError(
                f"{self.name}: the byte order changes at offset {offset_of(SWAPPED_MARK)}", SEPARATE_HINT
            )
        if "\0" in text and self.errors == "strict":
            raise CharlstmError(
                f"{self.name} contains a NUL at offset {offset_of(chr(0))}, so it is not text in {self.encoding}",
                self.hint,  # it nearly always means the wrong encoding
            )
        self.bytes_read += len(data)
        return text.replace("\0", "\ufffd") if self.errors == "replace" else text

    def remove_marks(self, text: str) -> str:
        """Remove the byte order marks from a chunk: U+FEFF at the start of a line and, if the stream begins with one,
        anywhere.

        Within a line U+FEFF is an old form of the word joiner U+2060, and may be meant; at the start of a line it has
        nothing to join. A stream that begins with a mark was made by a program that writes one to every file, and the
        last line of a file may lack its newline.
        """
        if not self.started and text:
            self.started = True
            self.begins_with_mark = self.begins_with_mark or text.startswith(MARK)
            text = text.removeprefix(MARK)
        if MARK in text:
            context = self.last_character
            text = MARKS_AT_LINE_START.sub(self.count_removed, context + text)[len(context) :]
            if self.begins_with_mark:
                text = re.sub(MARK, self.count_removed, text)
            self.marks_kept += text.count(MARK)
        self.last_character = text[-1:] or self.last_character
        return text

    def count_removed(self, marks: re.Match[str]) -> str:
        self.marks_removed += len(marks[0])
        return ""


def decode_text(data: bytes, name: str) -> str:
    """Decode a whole text in UTF-8 or, with a byte order mark, in another encoding.

    Raises CharlstmError, with the name and the offset, for a byte that cannot be decoded.
    """
    return TextDecoder(name).decode(data, final=True)


def find_character(decoder: codecs.IncrementalDecoder, before: tuple[bytes, int], data: bytes, character: str) -> int:
    """Return the offset in a chunk of the first byte of a character that it is decoded to.

    `before` is the state of the decoder before the chunk. The offset is negative if the character begins in an earlier
    chunk. In most encodings only decoding shows where a character is.
    """

    def is_decoded(size: int) -> bool:
        decoder.setstate(before)
        return character in decoder.decode(data[:size])

    end = bisect_left(range(len(data)), True, key=is_decoded)
    decoder.setstate(before)
    decoder.decode(data[: end - 1])
    incomplete, _ = decoder.getstate()
    return end - 1 - len(incomplete)


def describe_changes(changes: Sequence[Changes]) -> Iterator[str]:
    """Describe what was changed in several streams, one sentence each."""
    for encoding in sorted({each.detected_encoding for each in changes} - {""}):
        names = [each.name for each in changes if each.detected_encoding == encoding]
        files = f"{names[0]} starts" if len(names) == 1 else f"{len(names):,} files, such as {names[0]}, start"
        yield f"{files} with a byte order mark: read as {encoding.upper()}"
    if removed := sum(each.marks_removed for each in changes):
        marks = "1 byte order mark" if removed == 1 else f"{removed:,} byte order marks"
        yield f"removed {marks} (U+FEFF) inside the text, where joined files begin"
    if kept := sum(each.marks_kept for each in changes):
        yield f"kept {kept:,} U+FEFF within lines as characters"
    if kinds := sorted({NEWLINE_NAMES[newline] for each in changes for newline in each.newlines if newline != "\n"}):
        yield f"converted {' and '.join(kinds)} line endings to LF"
