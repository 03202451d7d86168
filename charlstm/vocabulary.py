"""Characters to ids and back: what the model's input and output numbers stand for."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CharlstmError, UsageError

Ids = NDArray[np.int64]
Text = str | bytes
"""A text is `str` where the unit is the character and `bytes` where it is the byte."""

Codes = NDArray[np.unsignedinteger[Any]]
"""A text as numbers, [length]: code points, or bytes."""

UNKNOWN_BYTES = "\N{REPLACEMENT CHARACTER}".encode()

END_OF_DOCUMENT = {"char": 0xD800, "byte": 0x100}
"""What stands between two documents, as a code: half a surrogate pair, which no text holds, or one more than a byte."""


class Vocabulary(ABC):
    """What the ids 0 to `size - 1` stand for."""

    level: str
    size: int
    unknown: int | None = None
    """The id that stands for every character not in the vocabulary, if there is one. It is never sampled."""
    end_of_document: int | None = None
    """The id that stands between documents, if there is one: read, it starts one afresh; drawn, it ends one."""

    @cached_property
    @abstractmethod
    def table(self) -> NDArray[np.int32]:
        """The id of each code up to the largest known one, then -1 for all above it."""

    @abstractmethod
    def codes(self, text: Text) -> Codes:
        """The text in numbers, whether or not it is of the vocabulary's own unit."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest that holds every id."""
        return np.min_scalar_type(self.size - 1)

    def lookup(self, text: Text) -> Ids:
        """The id of each character, [length]; -1 where the vocabulary has none."""
        return self.lookup_codes(self.codes(text)).astype(np.int64)

    def lookup_codes(self, codes: Codes) -> NDArray[np.int32]:
        """`lookup` of a text in numbers."""
        return self.table.take(codes, mode="clip")

    def lookup_or_unknown(self, codes: Codes) -> NDArray[np.unsignedinteger[Any]]:
        """The ids, in the smallest type, of the text that the vocabulary was made of: what it lacks was folded."""
        return self.table_with_unknown.take(codes, mode="clip")

    @cached_property
    def table_with_unknown(self) -> NDArray[np.unsignedinteger[Any]]:
        return np.where(self.table < 0, self.unknown or 0, self.table).astype(self.dtype)

    @cached_property
    @abstractmethod
    def symbols(self) -> list[bytes]:
        """The bytes that each id is written as, [size]."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What the model file keeps; `vocabulary_from_dict` reads it."""

    def decode(self, ids: Ids | Sequence[int]) -> bytes:
        """The text of these ids: UTF-8, or the bytes themselves."""
        return b"".join(self.symbols[i] for i in ids)

    def count_bytes(self, ids: NDArray[np.integer]) -> int:
        """The length of their text in bytes; a folded character counts as U+FFFD does, a boundary as a newline."""
        sizes = np.array([len(piece) for piece in self.symbols])
        if self.end_of_document is not None:
            sizes[self.end_of_document] = 1
        return int(sizes[ids].sum())

    def encode(self, text: Text, unknown: str = "symbol") -> Ids:
        """The ids of a text, [length]. What happens to a character the vocabulary lacks:

        `symbol` takes the unknown symbol or, without one, raises as `error` does; `replace` takes the unknown
        symbol or, without one, a space; `skip` leaves it out; `error` raises UsageError that names it.
        """
        return self.encode_codes(self.codes(text), unknown)

    def encode_codes(self, codes: Codes, unknown: str = "symbol", at: int = 0) -> Ids:
        """`encode` of a text in numbers, a chunk that begins at this position."""
        ids = self.lookup_codes(codes).astype(np.int64)
        missing = ids < 0
        if not missing.any():
            return ids
        if unknown == "skip":
            return ids[~missing]
        if unknown == "error" or (unknown == "symbol" and self.unknown is None):
            raise UsageError(
                describe_unknown(codes[missing], at + int(np.flatnonzero(missing)[0])),
                "--unknown skip leaves such characters out, --unknown replace puts another in their place",
            )
        ids[missing] = self.replacement
        return ids

    @property
    def replacement(self) -> int:
        """What replaces a character that is missing: the unknown symbol, a space or, at the worst, the first."""
        space = int(self.lookup(" " if self.level == "char" else b" ")[0])
        return self.unknown if self.unknown is not None else max(space, 0)

    @property
    def bos(self) -> int:
        """What a model has read before a text begins: the boundary of documents, else a line's end or, where it knows
        none, the first symbol."""
        if self.end_of_document is not None:
            return self.end_of_document
        newline = int(self.lookup("\n" if self.level == "char" else b"\n")[0])
        return max(newline, 0)


def describe_unknown(codes: Codes, first: int) -> str:
    """One sentence that names characters which the model has never seen, and where the first of them stands."""
    distinct = list(dict.fromkeys(codes.tolist()))
    named = ", ".join(name_character(chr(code)) for code in distinct[:5])
    more = f" and {len(distinct) - 5} more" if len(distinct) > 5 else ""
    return f"the model has never seen {named}{more} (first at position {first})"


def name_character(character: str) -> str:
    """A character with its code point and name, safe to print: `'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)`."""
    if "\udc80" <= character <= "\udcff":  # how Python passes on a byte of an argument or a pipe that is not text
        return f"the byte 0x{ord(character) - 0xDC00:02x}, which is not UTF-8"
    label = f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()
    return f"{character!r} ({label})" if character.isprintable() else label


class CharVocabulary(Vocabulary):
    """Code points in ascending order; then the unknown symbol, if rarer ones are folded into it, and the boundary."""

    level = "char"

    def __init__(self, characters: str, with_unknown: bool = False, documents: bool = False) -> None:
        self.characters = characters
        self.unknown = len(characters) if with_unknown else None
        self.size = len(characters) + with_unknown + documents
        self.end_of_document = self.size - 1 if documents else None

    @classmethod
    def from_counts(
        cls, counts: NDArray[np.integer], min_count: int = 1, max_vocab: int = 0, documents: bool = False
    ) -> CharVocabulary:
        """The vocabulary of a text in which each code point has this count, [highest code point + 1].

        Characters seen fewer than `min_count` times share the unknown symbol, and so do those that are not among the
        `max_vocab` most frequent (0: no limit). Where either is set there is always an unknown symbol, whether or not
        this text needs it. Raises CharlstmError where no character is left.
        """
        counts = counts.copy()
        counts[END_OF_DOCUMENT["char"] : END_OF_DOCUMENT["char"] + 1] = 0
        kept = np.flatnonzero(counts >= max(min_count, 1))
        if not len(kept):
            raise CharlstmError(f"no character of the corpus appears {min_count} times", "lower --min-count")
        if max_vocab:
            kept = np.sort(kept[np.argsort(-counts[kept], kind="stable")[:max_vocab]])
        return cls("".join(map(chr, kept.tolist())), min_count > 1 or max_vocab > 0, documents)

    @cached_property
    def table(self) -> NDArray[np.int32]:
        known = code_points(self.characters)
        highest = max(int(known[-1]), END_OF_DOCUMENT["char"] if self.end_of_document is not None else 0)
        table = np.full(highest + 2, -1, np.int32)
        table[known] = np.arange(len(known))
        if self.end_of_document is not None:
            table[END_OF_DOCUMENT["char"]] = self.end_of_document
        return table

    def codes(self, text: Text) -> Codes:
        return code_points(text if isinstance(text, str) else text.decode("utf-8", "surrogateescape"))

    @cached_property
    def symbols(self) -> list[bytes]:
        unknown = [UNKNOWN_BYTES] * (self.unknown is not None)
        return (
            [character.encode() for character in self.characters] + unknown + [b""] * (self.end_of_document is not None)
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "characters": self.characters,
            "unknown": self.unknown is not None,
            "boundary": self.end_of_document is not None,
        }


class ByteVocabulary(Vocabulary):
    """The 256 bytes, whatever the file; then the boundary, where it is one of documents."""

    level = "byte"

    def __init__(self, documents: bool = False) -> None:
        self.size = 256 + documents
        self.end_of_document = 256 if documents else None

    @cached_property
    def table(self) -> NDArray[np.int32]:
        return np.append(np.arange(self.size), -1).astype(np.int32)

    def codes(self, text: Text) -> Codes:
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        return np.frombuffer(data, np.uint8)

    @cached_property
    def symbols(self) -> list[bytes]:
        return [bytes([value]) for value in range(256)] + [b""] * (self.end_of_document is not None)

    def to_dict(self) -> dict[str, Any]:
        return {"level": self.level, "boundary": self.end_of_document is not None}


def vocabulary_from_dict(tree: dict[str, Any]) -> Vocabulary:
    """The inverse of `Vocabulary.to_dict`. Raises ValueError for what cannot be a vocabulary."""
    documents = bool(tree.get("boundary", False))
    if tree.get("level", tree.get("unit")) == "byte":
        return ByteVocabulary(documents)
    characters = tree["characters"]
    if not isinstance(characters, str) or list(characters) != sorted(set(characters)) or not characters:
        raise ValueError("the vocabulary is not a sorted list of characters")
    characters.encode()
    return CharVocabulary(characters, with_unknown=bool(tree["unknown"]), documents=documents)


def code_points(text: str) -> Codes:
    """The code points of a text, [length], in a type that holds them all.

    A lone surrogate, as an argument with broken bytes has, passes through.
    """
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    pairs = text.encode("utf-16-le", "surrogatepass")
    if len(pairs) == 2 * len(text):
        return np.frombuffer(pairs, np.uint16)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
