"""The vocabulary: which character or byte each id of a model stands for."""

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
"""`str` at the character level, `bytes` at the byte level."""

Codes = NDArray[np.unsignedinteger[Any]]
"""A text as numbers, [length]: code points at the character level, bytes at the byte level."""

UNKNOWN_BYTES = "\N{REPLACEMENT CHARACTER}".encode()
"""What `decode` writes for the unknown symbol."""

END_OF_DOCUMENT = {"char": 0xD800, "byte": 0x100}
"""The code of the end of a document, by level: a lone surrogate, which no text contains, or the number after a byte."""


class Vocabulary(ABC):
    """The symbols with ids 0 to `size - 1`: characters or bytes, then the unknown symbol and the end of a document."""

    level: str
    size: int
    unknown: int | None = None
    """Id of the symbol for every character not in the vocabulary; None if there is none. It is never sampled."""
    end_of_document: int | None = None
    """Id of the symbol between documents; None if there is none. Read, it resets the state; drawn, it ends the text."""

    @cached_property
    @abstractmethod
    def table(self) -> NDArray[np.int32]:
        """The id of each code, [highest known code + 2]: -1 for an unknown one, and last for all above the highest."""

    @abstractmethod
    def codes(self, text: Text) -> Codes:
        """Return the codes of a text, [length]. A text of the other level is encoded or decoded as UTF-8."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type for all ids."""
        return np.min_scalar_type(self.size - 1)

    def lookup(self, text: Text) -> Ids:
        """Return the id of each character, [length]; -1 for an unknown one."""
        return self.lookup_codes(self.codes(text)).astype(np.int64)

    def lookup_codes(self, codes: Codes) -> NDArray[np.int32]:
        """Return the id of each code, [length]; -1 for an unknown one."""
        return self.table.take(codes, mode="clip")

    def lookup_or_unknown(self, codes: Codes) -> NDArray[np.unsignedinteger[Any]]:
        """Return the id of each code of the training corpus, [length], in the smallest type; rare ones are unknown."""
        return self.table_with_unknown.take(codes, mode="clip")

    @cached_property
    def table_with_unknown(self) -> NDArray[np.unsignedinteger[Any]]:
        """`table` with the unknown symbol instead of -1."""
        return np.where(self.table < 0, self.unknown or 0, self.table).astype(self.dtype)

    @cached_property
    @abstractmethod
    def symbols(self) -> list[bytes]:
        """The bytes of each symbol, [size]: empty for the end of a document."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the vocabulary as JSON for a model file; `vocabulary_from_dict` is the inverse."""

    def decode(self, ids: NDArray[np.integer] | Sequence[int]) -> bytes:
        """Return the text of these ids, in UTF-8 at the character level."""
        return b"".join(self.symbols[i] for i in ids)

    def count_bytes(self, ids: NDArray[np.integer]) -> int:
        """Return the length of the text in bytes. The unknown symbol counts as U+FFFD, the end of a document as 1."""
        sizes = np.array([len(symbol) for symbol in self.symbols])
        if self.end_of_document is not None:
            sizes[self.end_of_document] = 1
        return int(sizes[ids].sum())

    def encode(self, text: Text, unknown: str = "symbol") -> Ids:
        """Return the ids of a text, [length]. `unknown` decides what becomes of a character not in the vocabulary:

        `symbol` takes the unknown symbol or, if there is none, raises UsageError; `replace` takes the unknown symbol
        or, if there is none, a space; `skip` leaves it out; `error` raises UsageError, which names the character.
        """
        return self.encode_codes(self.codes(text), unknown)

    def encode_codes(self, codes: Codes, unknown: str = "symbol", position: int = 0) -> Ids:
        """Encode a chunk of a text, given as codes. `position` is that of its first character, for errors."""
        ids = self.lookup_codes(codes).astype(np.int64)
        missing = ids < 0
        if not missing.any():
            return ids
        if unknown == "skip":
            return ids[~missing]
        if unknown == "error" or (unknown == "symbol" and self.unknown is None):
            raise UsageError(
                describe_unknown(codes[missing], position + int(np.flatnonzero(missing)[0])),
                "--unknown skip leaves such characters out, --unknown replace reads the unknown symbol or a space",
            )
        ids[missing] = self.replacement
        return ids

    @property
    def replacement(self) -> int:
        """The id that replaces an unknown character: the unknown symbol, else the space, else the first symbol."""
        space = int(self.lookup(" " if self.level == "char" else b" ")[0])
        return self.unknown if self.unknown is not None else max(space, 0)

    @property
    def bos(self) -> int:
        """BOS, the id that a model reads before a text begins: the end of a document, else the newline, else 0."""
        if self.end_of_document is not None:
            return self.end_of_document
        newline = int(self.lookup("\n" if self.level == "char" else b"\n")[0])
        return max(newline, 0)


class CharVocabulary(Vocabulary):
    """Characters in the order of their code points, then the unknown symbol and the end of a document, if any."""

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
        """Return the vocabulary of a text in which each code point has this count, [highest code point + 1].

        Characters seen fewer than `min_count` times, and all except the `max_vocab` most frequent (0: no limit), are
        replaced by the unknown symbol. If either is set there is an unknown symbol even if the text does not need it.
        `documents` adds the end of a document. Raises CharlstmError if no character is left.
        """
        counts = counts.copy()
        counts[END_OF_DOCUMENT["char"] : END_OF_DOCUMENT["char"] + 1] = 0
        kept = np.flatnonzero(counts >= max(min_count, 1))
        if not len(kept):
            raise CharlstmError(
                f"no character of the corpus occurs {min_count} times or more", "choose a lower --min-count"
            )
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
    """The 256 bytes, whatever the corpus contains, then the end of a document, if any."""

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
    """Read a vocabulary from a model file. Raises KeyError or ValueError if it is malformed."""
    documents = bool(tree.get("boundary", False))
    if tree.get("level", tree.get("unit")) == "byte":
        return ByteVocabulary(documents)
    characters = tree["characters"]
    if not isinstance(characters, str) or list(characters) != sorted(set(characters)) or not characters:
        raise ValueError("the characters of the vocabulary are not sorted, distinct and at least one")
    characters.encode()  # raises UnicodeEncodeError, a ValueError, for a surrogate
    return CharVocabulary(characters, with_unknown=bool(tree["unknown"]), documents=documents)


def code_points(text: str) -> Codes:
    """Return the code points of a text, [length], in an unsigned type that is wide enough.

    A lone surrogate is passed through: Python puts one for each byte of an argument that is not UTF-8.
    """
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    pairs = text.encode("utf-16-le", "surrogatepass")
    if len(pairs) == 2 * len(text):
        return np.frombuffer(pairs, np.uint16)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def describe_unknown(codes: Codes, first: int) -> str:
    """Return a sentence that names unknown characters and the position of the first one."""
    distinct = list(dict.fromkeys(codes.tolist()))
    named = ", ".join(name_character(chr(code)) for code in distinct[:5])
    more = f" and {len(distinct) - 5} more" if len(distinct) > 5 else ""
    return f"the model has never seen {named}{more} (first at offset {first})"


def name_character(character: str) -> str:
    """Return a character with code point and name, safe to print: `'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)`."""
    if "\udc80" <= character <= "\udcff":  # how Python represents a byte that is not UTF-8
        return f"the byte 0x{ord(character) - 0xDC00:02x}, which is not UTF-8"
    label = f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()
    return f"'{character}' ({label})" if character.isprintable() else label
