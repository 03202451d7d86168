"""A text to evaluate a model on or adapt it to, as ids of that model's vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from charlstm.config import DataConfig, UnknownPolicy
from charlstm.data.documents import FILE_END, read_codes
from charlstm.data.split import TokenIds
from charlstm.data.text import CorpusReader
from charlstm.errors import CharlstmError
from charlstm.storage import cache
from charlstm.storage.spool import MAX_IN_MEMORY, Spool
from charlstm.vocabulary import Text, Vocabulary
from charlstm.wording import quantity


class ExternalText:
    """The ids [length] of a text, and the number of characters that the vocabulary lacks.

    `unknown` is as in `Vocabulary.encode`, except that `error` accepts a character if the vocabulary has an unknown
    symbol. `characters` counts the ids that are not the end of a document, `skipped` the characters left out and
    `replaced` those encoded as another symbol. `bytes` is the size of the text in UTF-8.

    Raises UsageError for a source that cannot be read or an unknown character, CharlstmError for bytes that cannot be
    decoded or a text without characters that the model knows.
    """

    def __init__(
        self, config: DataConfig, vocabulary: Vocabulary, unknown: UnknownPolicy, stdin: BinaryIO | None
    ) -> None:
        self.vocabulary, self.unknown = vocabulary, "symbol" if unknown == "error" else unknown
        self.read = self.characters = self.bytes = self.skipped = self.replaced = 0
        reader = CorpusReader(config, Spool.from_stdin(config.corpus, stdin))
        self.ids: TokenIds = cache.gather_ids(self.encode_chunks(reader), vocabulary.dtype, MAX_IN_MEMORY)
        self.notes = tuple(reader.notes())
        if not self.characters:
            raise self.explain_empty(", ".join(config.corpus), reader.describe_omissions())
        if self.skipped:
            self.bytes = vocabulary.count_bytes(self.ids)

    def encode_chunks(self, reader: CorpusReader) -> Iterator[TokenIds]:
        end = -1 if self.vocabulary.end_of_document is None else self.vocabulary.end_of_document
        for codes in read_codes(reader, self.add_bytes):
            ids = self.vocabulary.encode_codes(codes, self.unknown, self.read)
            self.read += len(codes)
            self.skipped += len(codes) - len(ids)
            if self.unknown != "skip":
                self.replaced += int(np.count_nonzero(self.vocabulary.lookup_codes(codes) < 0))
            self.characters += int(np.count_nonzero(ids != end))
            yield ids.astype(self.vocabulary.dtype)

    def explain_empty(self, names: str, hint: str) -> CharlstmError:
        """Return the error for a text without characters that the model knows."""
        if not self.skipped:
            return CharlstmError(f"the text is empty: {names}", hint)
        return CharlstmError(
            f"{names} has {quantity(self.skipped, 'character')}, and the model knows none",
            "name a text in the model's alphabet, or its --encoding",
        )

    def add_bytes(self, text: Text) -> None:
        if text != FILE_END:
            self.bytes += len(text.encode() if isinstance(text, str) else text)
