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
from charlstm.data.documents import read_codes
from charlstm.data.split import Ids, Split
from charlstm.data.text import CorpusReader
from charlstm.errors import CharlstmError
from charlstm.storage import cache
from charlstm.storage.spool import MAX_IN_MEMORY, STDIN, Spool
from charlstm.vocabulary import END_OF_DOCUMENT, ByteVocabulary, CharVocabulary, Codes, Text, Vocabulary

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
    spool: Spool | None = None
    notes: tuple[str, ...] = ()
    """What was read otherwise than it stood there, in words."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_text(cls, text: Text, config: DataConfig = DataConfig()) -> Corpus:
        """The corpus that this text is."""
        data = text.encode() if isinstance(text, str) else text
        level = "char" if isinstance(text, str) else "byte"
        return read_corpus(replace(config, corpus=(STDIN,), encoding="utf-8", level=level), Spool(data))

    def split(self, shares: tuple[float, ...]) -> Split:
        """Its ids in parts of these shares. Raises CharlstmError if one would have nothing in it."""
        return Split(self.ids, shares, self.vocabulary.end_of_document)

    def head(self, length: int) -> Corpus:
        """Its beginning, in memory."""
        return replace(self, ids=np.array(self.ids[:length]))


@dataclass
class TextSurvey:
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

    def update_hash(self, text: Text) -> None:
        self.hash.update(text.encode() if isinstance(text, str) else text)

    def add(self, found: Codes) -> None:
        self.length += len(found)
        if self.config.document != "stream":
            self.documents += int(np.count_nonzero(found == END_OF_DOCUMENT[self.config.level]))
        if self.config.level == "char":
            counts = np.bincount(found)
            self.counts[: len(counts)] += counts
        self.size += found.nbytes
        if self.size <= MAX_IN_MEMORY:
            self.kept.append(found)
        else:
            self.kept.clear()

    def vocabulary(self) -> Vocabulary:
        documents = self.config.document != "stream"
        if self.config.level == "byte":
            return ByteVocabulary(documents)
        return CharVocabulary.from_counts(self.counts, self.config.min_count, self.config.max_vocab, documents)


def read_corpus(
    config: DataConfig,
    stdin: BinaryIO | Spool | None = None,
    vocabulary: Vocabulary | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Corpus:
    """The texts that `config.corpus` names, one after the other, as ids of their own vocabulary, or of that given.

    `watch` is told the share of the sources that was read, up to 2 where they are read twice. Raises UsageError for a
    source that cannot be read, CharlstmError for bytes that are not text, for no text, for one that changes while it is
    read, and for a cache folder without room.
    """
    piped = Spool.from_stdin(config.corpus, stdin)
    reader = CorpusReader(config, piped, on_progress)
    survey = TextSurvey(config)
    for found in read_codes(reader, survey.update_hash):
        survey.add(found)
    if not survey.length:
        raise CharlstmError(f"the corpus is empty: {', '.join(config.corpus)}")
    vocabulary = vocabulary or survey.vocabulary()
    fingerprint = survey.hash.hexdigest()
    if survey.size <= MAX_IN_MEMORY:
        ids = np.concatenate([vocabulary.lookup_or_unknown(found) for found in survey.kept])
    else:
        ids = load_or_store_ids(reader, vocabulary, fingerprint, survey.length)
    return Corpus(ids, vocabulary, fingerprint, survey.documents, piped, tuple(reader.notes()))


def load_or_store_ids(reader: CorpusReader, vocabulary: Vocabulary, fingerprint: str, length: int) -> Ids:
    """The ids of a large text, from the cache or by way of it."""
    name = cache.store_name(fingerprint, vocabulary.to_dict(), reader.config.document)
    ids = cache.load_ids(name, length, vocabulary.dtype)
    if ids is None:
        ids = cache.save_ids(name, fold_ids(reader, vocabulary, fingerprint), length, vocabulary.dtype)
    return ids


def fold_ids(reader: CorpusReader, vocabulary: Vocabulary, fingerprint: str) -> Iterator[Ids]:
    """The second reading. Raises CharlstmError, at its end, if the text is not the one that was read first."""
    again = TextSurvey(reader.config)
    for found in read_codes(reader, again.update_hash):
        yield vocabulary.lookup_or_unknown(found)
    if again.hash.hexdigest() != fingerprint:
        raise CharlstmError(
            "the corpus changed while it was read", "wait until nobody writes to it, or train on a copy"
        )


def derive_run_name(sources: Sequence[str]) -> str:
    """What to call a run on these: the first one's name, without its ending. Always the name of a file."""
    if sources[0] == STDIN:
        return "stdin"
    path = Path(sources[0]).resolve()
    packed = path.suffix in (".gz", ".xz", ".zst", ".bz2")
    name = Path(path.stem).stem if packed else path.stem
    return "corpus" if name in ("", ".", "..") else name
