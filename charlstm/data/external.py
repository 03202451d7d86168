"""A text that is not a model's corpus, in the ids of that model's vocabulary: what is evaluated or adapted to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from charlstm.config import DataConfig, UnknownPolicy
from charlstm.data.documents import FILE_END, read_codes
from charlstm.data.split import Ids
from charlstm.data.text import CorpusReader
from charlstm.errors import CharlstmError
from charlstm.storage import cache
from charlstm.storage.spool import MAX_IN_MEMORY, Spool
from charlstm.vocabulary import Text, Vocabulary


class ExternalText:
    """Its ids [length], and what was left out of it or folded into the unknown symbol on the way.

    `unknown` is as in `Vocabulary.encode`, but that `error` spares a character that the vocabulary folds. Raises
    UsageError for a source that cannot be read or an unknown character, CharlstmError for bytes that are not text or
    if nothing is left.
    """

    def __init__(
        self, config: DataConfig, vocabulary: Vocabulary, unknown: UnknownPolicy, stdin: BinaryIO | None
    ) -> None:
        self.vocabulary, self.unknown = vocabulary, "symbol" if unknown == "error" else unknown
        self.read = self.bytes = self.left_out = self.folded = 0
        reader = CorpusReader(config, Spool.from_stdin(config.corpus, stdin))
        self.ids: Ids = cache.gather_ids(self.encode_chunks(reader), vocabulary.dtype, MAX_IN_MEMORY)
        self.notes = tuple(reader.notes())
        if not len(self.ids):
            raise CharlstmError(f"there is nothing to read: {', '.join(config.corpus)} is empty")
        if self.left_out:
            self.bytes = vocabulary.count_bytes(self.ids)

    def encode_chunks(self, reader: CorpusReader) -> Iterator[Ids]:
        for found in read_codes(reader, self.add_bytes):
            ids = self.vocabulary.encode_codes(found, self.unknown, self.read)
            self.read += len(found)
            self.left_out += len(found) - len(ids)
            if self.unknown != "skip":
                self.folded += int(np.count_nonzero(self.vocabulary.lookup_codes(found) < 0))
            yield ids.astype(self.vocabulary.dtype)

    def add_bytes(self, text: Text) -> None:
        if text != FILE_END:
            self.bytes += len(text.encode() if isinstance(text, str) else text)
