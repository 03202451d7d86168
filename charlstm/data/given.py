"""A text that is not a model's corpus, in the ids of that model's vocabulary: what is evaluated or adapted to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from charlstm.config import DataConfig, Unknown
from charlstm.data import cache
from charlstm.data.documents import FILE_END, codes
from charlstm.data.spool import IN_MEMORY, Piped
from charlstm.data.text import Reader
from charlstm.data.tokens import Ids
from charlstm.errors import CharlstmError
from charlstm.vocabulary import Text, Vocabulary


class GivenText:
    """Its ids [length], and what was left out of it or folded into the unknown symbol on the way.

    `unknown` is as in `Vocabulary.encode`, but that `error` spares a character that the vocabulary folds. Raises
    UsageError for a source that cannot be read or an unknown character, CharlstmError for bytes that are not text or
    if nothing is left.
    """

    def __init__(self, config: DataConfig, vocabulary: Vocabulary, unknown: Unknown, stdin: BinaryIO | None) -> None:
        self.vocabulary, self.unknown = vocabulary, "fold" if unknown == "error" else unknown
        self.read = self.bytes = self.left_out = self.folded = 0
        reader = Reader(config, Piped.kept(config.corpus, stdin))
        self.ids: Ids = cache.gathered(self.encoded(reader), vocabulary.dtype, IN_MEMORY)
        self.remarks = tuple(reader.remarks())
        if not len(self.ids):
            raise CharlstmError(f"there is nothing to read: {', '.join(config.corpus)} is empty")
        if self.left_out:
            self.bytes = vocabulary.count_bytes(self.ids)

    def encoded(self, reader: Reader) -> Iterator[Ids]:
        for found in codes(reader, self.hear):
            ids = self.vocabulary.encode_codes(found, self.unknown, self.read)
            self.read += len(found)
            self.left_out += len(found) - len(ids)
            if self.unknown != "skip":
                self.folded += int(np.count_nonzero(self.vocabulary.lookup_codes(found) < 0))
            yield ids.astype(self.vocabulary.dtype)

    def hear(self, text: Text) -> None:
        if text != FILE_END:
            self.bytes += len(text.encode() if isinstance(text, str) else text)
