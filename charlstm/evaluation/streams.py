"""Cut a text into streams that are read in parallel. No torch: `charlstm.infilling` uses it too.

A network that reads one long sequence uses little of a processor. So a text is cut into B streams of equal length, and
each one first reads the characters before it, unscored (the warm-up), until its state is nearly that of a network that
has read the whole text up to there. Every character is scored exactly once. Of a text that is read in part, each stream
reads only the first characters of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from charlstm.data.split import Tokens
from charlstm.workers import divide

IdSequence = Tokens | NDArray[np.integer]
"""The ids of a text, [length]."""

Places = NDArray[np.int64]
"""Positions in a text, counted from 0."""

MAX_STREAMS = 64
MIN_STREAM = 4096
MIN_PIECE = 1024
"""Fewest characters of a stream through a text that is read in part: many places say more of it than long pieces."""

WARMUP = 512
"""Characters that a stream reads before its own. The state of a trained network forgets what lies further back."""

MAX_CHUNK_STEPS = 512
MAX_CHUNK_LOGITS = 2**23
"""Logits of a chunk: 32 MB in float32, whatever the size of the vocabulary."""


@dataclass(frozen=True)
class Streams:
    """A text of `length` characters as B streams, one after the other.

    Stream k has the characters from `starts[k]` to `starts[k] + steps - 1`, as far as the text reaches: the last
    stream may be shorter than the others. The streams cover the text, or are spread evenly over it.
    """

    length: int
    steps: int
    starts: Places  # [B]

    @classmethod
    def cut(cls, length: int, count: int) -> Streams:
        """Cut a text into `count` streams."""
        steps = ceil(length / count)
        return cls(length, steps, np.arange(count) * steps)

    @classmethod
    def for_evaluation(cls, length: int, limit: int = 0) -> Streams:
        """Cut a text into as many streams as are worth their warm-up, which read about `limit` characters; 0 is all."""
        if not 0 < limit < length:
            return cls.cut(length, min(max(length // MIN_STREAM, 1), MAX_STREAMS))
        count = min(max(limit // MIN_PIECE, 1), MAX_STREAMS)
        return replace(cls.cut(length, count), steps=ceil(limit / count))

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The parts of the text that the streams read, as pairs (first, last)."""
        return [(start, min(start + self.steps, self.length)) for start in self.starts.tolist()]

    @property
    def characters(self) -> int:
        """Characters that the streams read, without warm-ups."""
        return sum(last - first for first, last in self.spans)

    def split(self, parts: int) -> list[Streams]:
        """Return consecutive parts of these streams."""
        return [Streams(self.length, self.steps, self.starts[part]) for part in divide(len(self.starts), parts)]

    def places(self, first: int, last: int) -> Places:
        """Return the places of the steps `first` to `last - 1` of each stream, [T, B].

        Negative steps are those of the warm-up. A place may lie outside the text.
        """
        return self.starts + np.arange(first, last)[:, None]

    @property
    def last_steps(self) -> int:
        """Steps of the last stream."""
        return min(self.length - int(self.starts[-1]), self.steps)

    def chunk_steps(self, symbols: int) -> int:
        """Return the steps of a chunk whose logits, [T, B, symbols], fit in memory."""
        return int(min(max(MAX_CHUNK_LOGITS // (len(self.starts) * symbols), 1), MAX_CHUNK_STEPS))

    def chunks(self, steps: int) -> list[tuple[int, int]]:
        """Return spans of at most `steps` steps that cover the streams, as pairs (first, last)."""
        return list(pairwise([*range(0, self.steps, steps), self.steps]))

    def chunks_to_each_end(self, steps: int) -> list[tuple[int, int]]:
        """Return spans as `chunks` does, one of which ends where the last stream ends."""
        return list(pairwise(sorted({*range(0, self.steps, steps), self.last_steps, self.steps})))


def preceding_ids(ids: IdSequence, places: Places, bos: int) -> Places:
    """Return the id before each of these places: BOS before the first."""
    found = ids[np.maximum(places - 1, 0)].astype(np.int64)
    return np.where(places == 0, bos, found)


def following_ids(ids: IdSequence, places: Places, bos: int) -> Places:
    """Return the id after each of these places: BOS after the last."""
    found = ids[np.minimum(places + 1, len(ids) - 1)].astype(np.int64)
    return np.where(places == len(ids) - 1, bos, found)
