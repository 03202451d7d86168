"""A corpus: the text of files, folders and stdin as ids, and what was found out about it on the way.

The sources are read once to see which characters there are, and a second time for their ids where they are too large to
be kept meanwhile. What is kept in memory does not grow with the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from charlstm.config import DataConfig
from charlstm.data import cache
from charlstm.data.documents import codes
from charlstm.data.spool import IN_MEMORY, STDIN, Piped
from charlstm.data.text import Reader
from charlstm.data.tokens import Ids, TokenStore
from charlstm.errors import CharlstmError
from charlstm.vocabulary import BOUNDARY, Bytes, Characters, Codes, Text, Vocabulary

CODE_POINTS = 0x110000


@dataclass(frozen=True)
class Corpus:
    """A text as ids [length], in memory or mapped from the cache folder, and where it came from."""

    ids: Ids
    vocabulary: Vocabulary
    fingerprint: str
    """SHA-256 of the text in UTF-8: tells whether this is the corpus that a model was trained on."""
    documents: int = 0
    """Boundaries among the ids: one after each document, where the text is one of documents."""
    piped: Piped | None = None
    remarks: tuple[str, ...] = ()
    """What was read otherwise than it stood there, in words."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, text: Text, config: DataConfig = DataConfig()) -> Corpus:
        """The corpus that this text is."""
        data = text.encode() if isinstance(text, str) else text
        unit = "char" if isinstance(text, str) else "byte"
        return read_corpus(replace(config, corpus=(STDIN,), encoding="utf-8", unit=unit), Piped(data))

    def parts(self, split: tuple[float, ...]) -> TokenStore:
        """Its ids in parts of these shares. Raises CharlstmError if one would have nothing in it."""
        return TokenStore(self.ids, split, self.vocabulary.boundary)

    def head(self, length: int) -> Corpus:
        """Its beginning, in memory."""
        return replace(self, ids=np.array(self.ids[:length]))


@dataclass
class Survey:
    """What is found out about a text in the first reading: how often each character stands in it, and its fingerprint.

    As long as it is small, the text is kept too.
    """

    config: DataConfig
    length: int = 0
    documents: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(CODE_POINTS, np.int64))
    kept: list[Codes] = field(default_factory=list)
    size: int = 0  # bytes kept; more than IN_MEMORY once nothing is

    def __post_init__(self) -> None:
        self.hash = hashlib.sha256()

    def hear(self, text: Text) -> None:
        self.hash.update(text.encode() if isinstance(text, str) else text)

    def add(self, found: Codes) -> None:
        self.length += len(found)
        if self.config.document != "stream":
            self.documents += int(np.count_nonzero(found == BOUNDARY[self.config.unit]))
        if self.config.unit == "char":
            counts = np.bincount(found)
            self.counts[: len(counts)] += counts
        self.size += found.nbytes
        if self.size <= IN_MEMORY:
            self.kept.append(found)
        else:
            self.kept.clear()

    def vocabulary(self) -> Vocabulary:
        documents = self.config.document != "stream"
        if self.config.unit == "byte":
            return Bytes(documents)
        return Characters.of(self.counts, self.config.min_count, self.config.max_vocab, documents)


def read_corpus(
    config: DataConfig,
    stdin: BinaryIO | Piped | None = None,
    vocabulary: Vocabulary | None = None,
    watch: Callable[[float], None] = lambda share: None,
) -> Corpus:
    """The texts that `config.corpus` names, one after the other, as ids of their own vocabulary, or of that given.

    `watch` is told the share of the sources that was read, up to 2 where they are read twice. Raises UsageError for a
    source that cannot be read, CharlstmError for bytes that are not text, for no text, for one that changes while it is
    read, and for a cache folder without room.
    """
    piped = Piped.kept(config.corpus, stdin)
    reader = Reader(config, piped, watch)
    survey = Survey(config)
    for found in codes(reader, survey.hear):
        survey.add(found)
    if not survey.length:
        raise CharlstmError(f"the corpus is empty: {', '.join(config.corpus)}")
    vocabulary = vocabulary or survey.vocabulary()
    fingerprint = survey.hash.hexdigest()
    if survey.size <= IN_MEMORY:
        ids = np.concatenate([vocabulary.fold(found) for found in survey.kept])
    else:
        ids = stored(reader, vocabulary, fingerprint, survey.length)
    return Corpus(ids, vocabulary, fingerprint, survey.documents, piped, tuple(reader.remarks()))


def stored(reader: Reader, vocabulary: Vocabulary, fingerprint: str, length: int) -> Ids:
    """The ids of a large text, from the cache or by way of it."""
    name = cache.key(fingerprint, vocabulary.to_dict(), reader.config.document)
    ids = cache.load(name, length, vocabulary.dtype)
    if ids is None:
        ids = cache.save(name, folded(reader, vocabulary, fingerprint), length, vocabulary.dtype)
    return ids


def folded(reader: Reader, vocabulary: Vocabulary, fingerprint: str) -> Iterator[Ids]:
    """The second reading. Raises CharlstmError, at its end, if the text is not the one that was read first."""
    again = Survey(reader.config)
    for found in codes(reader, again.hear):
        yield vocabulary.fold(found)
    if again.hash.hexdigest() != fingerprint:
        raise CharlstmError(
            "the corpus changed while it was read", "wait until nobody writes to it, or train on a copy"
        )


def name_of(sources: Sequence[str]) -> str:
    """What to call a run on these: the first one's name, without its ending. Always the name of a file."""
    if sources[0] == STDIN:
        return "stdin"
    path = Path(sources[0]).resolve()
    packed = path.suffix in (".gz", ".xz", ".zst", ".bz2")
    name = Path(path.stem).stem if packed else path.stem
    return "corpus" if name in ("", ".", "..") else name
