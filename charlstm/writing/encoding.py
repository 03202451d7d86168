"""From the edited text to the symbols that a model reads, and from their surprises back to characters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlstm.config import DataConfig
from charlstm.data.normalize import normalize_text
from charlstm.vocabulary import END_OF_DOCUMENT, Ids, Vocabulary
from charlstm.writing.graphemes import iterate_clusters


class TextEncoder:
    """Encodes text for a model. Where each line is a document, a newline is the end of a document.

    unknown: "skip" leaves out characters that are not in the vocabulary, "replace" reads the unknown symbol or a space.
    """

    def __init__(self, vocabulary: Vocabulary, data: DataConfig, unknown: str) -> None:
        self.vocabulary, self.data, self.unknown = vocabulary, data, unknown
        self.has_line_documents = data.for_plain_text().document == "line" and vocabulary.end_of_document is not None

    def encode(self, text: str) -> Ids:
        """Return the ids of a text, [symbols]."""
        codes = self.vocabulary.codes(normalize_text(text, self.data))
        if self.has_line_documents:
            codes = codes.astype(np.uint32)
            codes[codes == ord("\n")] = END_OF_DOCUMENT[self.vocabulary.level]
        return self.vocabulary.encode_codes(codes, self.unknown)

    def find_symbols(self, text: str) -> tuple[Ids, Ids]:
        """Return the first of each character's symbols, and the one after the last, [characters] each.

        The characters of a cluster have the same symbols.
        """
        sizes = [(len(cluster), len(self.encode(cluster))) for cluster in iterate_clusters(text)]
        edges = np.cumsum([0, *(symbols for _, symbols in sizes)])
        lengths = [characters for characters, _ in sizes]
        return np.repeat(edges[:-1], lengths), np.repeat(edges[1:], lengths)

    def find_unknown(self, text: str) -> NDArray[np.bool_]:
        """Return which characters of a text are not in the vocabulary, [characters]."""
        codes = self.vocabulary.codes(normalize_text(text, self.data))
        if self.vocabulary.level == "byte":
            return np.zeros(len(text), np.bool_)
        if len(codes) == len(text):
            return self.vocabulary.lookup_codes(codes) < 0
        return np.array([(self.vocabulary.lookup(normalize_text(c, self.data)) < 0).any() for c in text], np.bool_)
