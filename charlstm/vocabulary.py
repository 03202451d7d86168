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

UNKNOWN_PIECE = "\N{REPLACEMENT CHARACTER}".encode()


class Vocabulary(ABC):
    """What the ids 0 to `size - 1` stand for."""

    unit: str
    size: int
    unknown: int | None = None
    """The id that stands for every character not in the vocabulary, if there is one. It is never sampled."""
    boundary: int | None = None
    """The id that stands between documents, if there is one: read, it starts one afresh; drawn, it ends one."""

    @abstractmethod
    def lookup(self, text: Text) -> Ids:
        """The id of each character, [length]; -1 where the vocabulary has none."""

    @cached_property
    @abstractmethod
    def pieces(self) -> list[bytes]:
        """The bytes that each id is written as, [size]."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What the model file keeps; `vocabulary_from_dict` reads it."""

    def decode(self, ids: Ids | Sequence[int]) -> bytes:
        """The text of these ids: UTF-8, or the bytes themselves."""
        return b"".join(self.pieces[i] for i in ids)

    def count_bytes(self, ids: NDArray[np.integer]) -> int:
        """The length of their text in bytes; a folded character counts as U+FFFD does."""
        return int(np.array([len(piece) for piece in self.pieces])[ids].sum())

    def encode(self, text: Text, unknown: str = "fold") -> Ids:
        """The ids of a text, [length]. What happens to a character the vocabulary lacks:

        `fold` takes the unknown symbol or, without one, raises as `error` does; `replace` takes the unknown
        symbol or, without one, a space; `skip` leaves it out; `error` raises UsageError that names it.
        """
        ids = self.lookup(text)
        missing = ids < 0
        if not missing.any():
            return ids
        if unknown == "skip":
            return ids[~missing]
        if unknown == "error" or (unknown == "fold" and self.unknown is None):
            raise UsageError(
                self.complaint(text, np.flatnonzero(missing)),
                "--unknown skip leaves such characters out, --unknown replace puts another in their place",
            )
        ids[missing] = self.stand_in
        return ids

    @property
    def stand_in(self) -> int:
        """What replaces a character that is missing: the unknown symbol, a space or, at the worst, the first."""
        space = int(self.lookup(" " if self.unit == "char" else b" ")[0])
        return self.unknown if self.unknown is not None else max(space, 0)

    @property
    def start(self) -> int:
        """What a model has read before a text begins: a line's end or, where it knows none, the first symbol."""
        newline = int(self.lookup("\n" if self.unit == "char" else b"\n")[0])
        return max(newline, 0)

    def complaint(self, text: Text, places: NDArray[np.int64]) -> str:
        """One sentence that names the characters at these places which the model has never seen."""
        distinct = list(dict.fromkeys(text[int(place)] for place in places))
        named = ", ".join(name_of(str(character)) for character in distinct[:5])
        more = f" and {len(distinct) - 5} more" if len(distinct) > 5 else ""
        return f"the model has never seen {named}{more} (first at position {int(places[0])})"


def name_of(character: str) -> str:
    """A character with its code point and name, safe to print: `'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)`."""
    if "\udc80" <= character <= "\udcff":  # how Python passes on a byte of an argument or a pipe that is not text
        return f"the byte 0x{ord(character) - 0xDC00:02x}, which is not UTF-8"
    label = f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()
    return f"{character!r} ({label})" if character.isprintable() else label


class Characters(Vocabulary):
    """Code points in ascending order; one more id for the unknown symbol, if rarer ones are folded into it."""

    unit = "char"

    def __init__(self, characters: str, folds: bool = False) -> None:
        self.characters = characters
        self.unknown = len(characters) if folds else None
        self.size = len(characters) + folds

    @classmethod
    def of(cls, text: str, min_count: int = 1) -> Characters:
        """The vocabulary of a text. Characters seen fewer than `min_count` times share the unknown symbol.

        With a `min_count` above 1 there is always an unknown symbol, whether or not this text needs it.
        """
        counts = np.bincount(code_points(text))
        kept = np.flatnonzero(counts >= min_count)
        if not len(kept):
            raise CharlstmError(f"no character of the corpus appears {min_count} times", "lower --min-count")
        return cls("".join(map(chr, kept.tolist())), folds=min_count > 1)

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """The id of each code point up to the largest known one, then -1 for all above it."""
        known = code_points(self.characters)
        table = np.full(int(known[-1]) + 2, -1, np.int32)
        table[known] = np.arange(len(known))
        return table

    def lookup(self, text: Text) -> Ids:
        points = code_points(text if isinstance(text, str) else text.decode("utf-8", "surrogateescape"))
        return self.table[np.minimum(points, len(self.table) - 1)].astype(np.int64)

    @cached_property
    def pieces(self) -> list[bytes]:
        return [character.encode() for character in self.characters] + [UNKNOWN_PIECE] * (self.unknown is not None)

    def to_dict(self) -> dict[str, Any]:
        return {"unit": self.unit, "characters": self.characters, "unknown": self.unknown is not None}


class Bytes(Vocabulary):
    """The 256 bytes, whatever the file."""

    unit = "byte"
    size = 256

    def lookup(self, text: Text) -> Ids:
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        return np.frombuffer(data, np.uint8).astype(np.int64)

    @cached_property
    def pieces(self) -> list[bytes]:
        return [bytes([value]) for value in range(256)]

    def to_dict(self) -> dict[str, Any]:
        return {"unit": self.unit}


def vocabulary_of(text: Text, min_count: int = 1) -> Vocabulary:
    """The vocabulary that a corpus gives rise to."""
    return Characters.of(text, min_count) if isinstance(text, str) else Bytes()


def vocabulary_from_dict(tree: dict[str, Any]) -> Vocabulary:
    """The inverse of `Vocabulary.to_dict`. Raises ValueError for what cannot be a vocabulary."""
    if tree.get("unit") == "byte":
        return Bytes()
    characters = tree["characters"]
    if not isinstance(characters, str) or list(characters) != sorted(set(characters)) or not characters:
        raise ValueError("the vocabulary is not a sorted list of characters")
    characters.encode()
    return Characters(characters, folds=bool(tree["unknown"]))


def code_points(text: str) -> NDArray[np.uint32]:
    """The code points of a text, [length]. A lone surrogate, as an argument with broken bytes has, passes through."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
