"""A corpus: the text of files, folders and stdin as ids, with its vocabulary and fingerprint.

The sources are read once to count the characters, and again for the ids if the text is too large to keep in memory.
Memory use does not grow with the size of the text.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from charlstm.config import DataConfig
from charlstm.data.documents import read_codes
from charlstm.data.split import Split, TokenIds
from charlstm.data.text import CorpusReader
from charlstm.errors import CharlstmError
from charlstm.storage import cache
from charlstm.storage.locate import STDIN
from charlstm.storage.spool import MAX_IN_MEMORY, Spool
from charlstm.vocabulary import END_OF_DOCUMENT, ByteVocabulary, CharVocabulary, Codes, Text, Vocabulary


@dataclass(frozen=True)
class Corpus:
    """A text as ids [length], in memory or mapped from the cache folder, with its vocabulary.

    `spool` holds the text if it came from stdin.
    """

    ids: TokenIds
    vocabulary: Vocabulary
    fingerprint: str
    """SHA-256 of the text in UTF-8, which identifies the corpus that a model was trained on."""
    documents: int = 0
    """The number of documents, each followed by the end-of-document symbol; 0 for one stream of text."""
    spool: Spool | None = None
    notes: tuple[str, ...] = ()
    """What the reader changed in the text, one sentence each."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_text(cls, text: Text, config: DataConfig = DataConfig()) -> Corpus:
        """Make a corpus of a string (characters) or of bytes."""
        data = text.encode() if isinstance(text, str) else text
        level = "char" if isinstance(text, str) else "byte"
        return read_corpus(replace(config, corpus=(STDIN,), encoding="utf-8", level=level), Spool(data))

    def split(self, shares: tuple[float, ...]) -> Split:
        """Split the ids into parts of these shares. Raises CharlstmError if a part would be empty."""
        return Split(self.ids, shares, self.vocabulary.end_of_document)

    def head(self, length: int) -> Corpus:
        """Return the first `length` ids as a corpus in memory: at least two documents, if any, so it can be split."""
        ids = np.array(self.ids[:length])
        if self.vocabulary.end_of_document is not None and length < len(self.ids):
            ids[[length // 2, -1]] = self.vocabulary.end_of_document
        return replace(self, ids=ids)


@dataclass
class TextSurvey:
    """What the first reading of a text collects: the count of each character, and a hash of the text.

    A small text is also kept.
    """

    config: DataConfig
    length: int = 0
    documents: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(sys.maxunicode + 1, np.int64))
    kept: list[Codes] = field(default_factory=list)
    size: int = 0  # bytes of all codes; beyond MAX_IN_MEMORY none are kept

    def __post_init__(self) -> None:
        self.hash = hashlib.sha256()

    def update_hash(self, text: Text) -> None:
        self.hash.update(text.encode() if isinstance(text, str) else text)

    def add(self, codes: Codes) -> None:
        self.length += len(codes)
        if self.config.has_documents:
            self.documents += int(np.count_nonzero(codes == END_OF_DOCUMENT[self.config.level]))
        if self.config.level == "char":
            counts = np.bincount(codes)
            self.counts[: len(counts)] += counts
        self.size += codes.nbytes
        if self.size <= MAX_IN_MEMORY:
            self.kept.append(codes)
        else:
            self.kept.clear()

    def vocabulary(self) -> Vocabulary:
        documents = self.config.has_documents
        if self.config.level == "byte":
            return ByteVocabulary(documents)
        return CharVocabulary.from_counts(self.counts, self.config.min_count, self.config.max_vocab, documents)


def read_corpus(
    config: DataConfig,
    stdin: BinaryIO | Spool | None = None,
    vocabulary: Vocabulary | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Corpus:
    """Read the texts that `config.corpus` names, in order, as ids of `vocabulary`, or of one made from the text.

    `on_progress` is called with the share of the sources that was read, up to 2 if they are read twice. Raises
    UsageError for a source that cannot be read, CharlstmError for bytes that cannot be decoded, an empty text, a text
    that changes while it is read, or a cache folder that cannot be written.
    """
    spool = Spool.from_stdin(config.corpus, stdin)
    reader = CorpusReader(config, spool, on_progress)
    survey = TextSurvey(config)
    for codes in read_codes(reader, survey.update_hash):
        survey.add(codes)
    if not survey.length:
        raise CharlstmError(f"the corpus is empty: {', '.join(config.corpus)}", reader.describe_omissions())
    vocabulary = vocabulary or survey.vocabulary()
    fingerprint = survey.hash.hexdigest()
    if survey.size <= MAX_IN_MEMORY:
        ids = np.concatenate([vocabulary.lookup_or_unknown(codes) for codes in survey.kept])
    else:
        ids = load_or_store_ids(reader, vocabulary, fingerprint, survey.length)
    return Corpus(ids, vocabulary, fingerprint, survey.documents, spool, tuple(reader.notes()))


def load_or_store_ids(reader: CorpusReader, vocabulary: Vocabulary, fingerprint: str, length: int) -> TokenIds:
    """Map the ids of a large text from the cache folder, after writing them there if necessary."""
    name = cache.store_name(
        fingerprint, vocabulary.to_dict(), "file" if reader.config.reads_records else reader.config.document
    )
    ids = cache.load_ids(name, length, vocabulary.dtype)
    if ids is None:
        with cache.lock_name(name):  # of several processes that read the same text, one stores its ids
            ids = cache.load_ids(name, length, vocabulary.dtype)
            if ids is None:
                ids = cache.save_ids(name, reread_ids(reader, vocabulary, fingerprint), length, vocabulary.dtype)
    return ids


def reread_ids(reader: CorpusReader, vocabulary: Vocabulary, fingerprint: str) -> Iterator[TokenIds]:
    """Read the text again, as ids. Raises CharlstmError at the end if it is not the text of the first reading."""
    survey = TextSurvey(reader.config)
    for codes in read_codes(reader, survey.update_hash):
        yield vocabulary.lookup_or_unknown(codes)
    if survey.hash.hexdigest() != fingerprint:
        raise CharlstmError(
            "the corpus changed while it was read", "wait until no program writes to it, or train on a copy"
        )


def derive_run_name(sources: Sequence[str]) -> str:
    """Return the default name of a run on these sources: the name of the first one, without its suffixes."""
    if sources[0] == STDIN:
        return "stdin"
    path = Path(sources[0]).resolve()
    compressed = path.suffix in (".gz", ".xz", ".zst", ".bz2")
    name = Path(path.stem).stem if compressed else path.stem
    return "corpus" if name in ("", ".", "..") else name
