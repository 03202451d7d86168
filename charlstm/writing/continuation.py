"""A continuation of the text, drawn one symbol at a time, as `charlstm sample` draws it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from charlstm.config import SamplingConfig
from charlstm.infilling.context import Context
from charlstm.sampling.filters import mask_symbol, sample_ids
from charlstm.sampling.fragments import Sample
from charlstm.sampling.network import SymbolReader
from charlstm.sampling.reading_order import ReadingOrder
from charlstm.vocabulary import Vocabulary
from charlstm.writing.graphemes import find_next_boundary

WORD = re.compile(r"\n|[^\S\n]*\S*")
"""A newline, or white space and what follows it up to the next white space."""


@dataclass(frozen=True)
class Drawing:
    """How continuations are drawn: by which network, with which options of `charlstm sample`, and how long."""

    network: SymbolReader
    vocabulary: Vocabulary
    config: SamplingConfig
    seed: int
    stops: Sequence[str] = ()


class Continuation:
    """The text that sample `index` of a seed continues a context with. It never contains part of a character."""

    def __init__(self, drawing: Drawing, context: Context, index: int) -> None:
        self.drawing, self.context = drawing, context
        self.sample = Sample.begin(drawing.seed, index, ReadingOrder("forward").stop_bytes(drawing.stops))
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text = ""
        self.has_ended = False

    @property
    def is_complete(self) -> bool:
        """Whether the text is as long as it is to be shown."""
        return self.has_ended or len(self.text) >= self.drawing.config.length

    def draw(self) -> None:
        """Draw one more symbol."""
        network, vocabulary = self.drawing.network, self.drawing.vocabulary
        logits = mask_symbol(network.head.logits(self.context.head_input), vocabulary.unknown)
        ids = sample_ids(logits, self.drawing.config, np.array([self.sample.random.random()]))
        symbol = int(ids[0])
        fragment = self.sample.add(vocabulary.symbols[symbol], 0, symbol == vocabulary.end_of_document)
        self.has_ended = bool(fragment.stop_reason)
        try:
            self.text += self.decoder.decode(fragment.text)
        except UnicodeDecodeError:  # a model of bytes has drawn some that are not text
            self.has_ended = True
        if not self.has_ended:
            self.context = self.context.advance(network, ids)


def take_character(text: str) -> str:
    """Return the first character (grapheme cluster) of a text."""
    return text[: find_next_boundary(text, 0)]


def take_word(text: str) -> str:
    """Return the first word of a text with the white space before it, or the newline with which the text begins."""
    match = WORD.match(text)
    return match[0] if match and match[0] else text[:1]
