"""The direction in which a network reads and writes. The network itself only knows the next character."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from charlstm.config import Direction
from charlstm.matrices import Array
from charlstm.sampling.fragments import Fragment
from charlstm.vocabulary import Ids

Ordered = TypeVar("Ordered", bytes, Ids, Array, NDArray[np.integer])


class ReadingOrder:
    """Converts between the order of a text and the order in which a network reads it.

    A backward network reads a text from its end. Everything it reads is reversed on the way in, and what it writes is
    reversed on the way out: ids, the bytes of each symbol, and stop strings.
    """

    def __init__(self, direction: Direction) -> None:
        self.backward = direction == "backward"

    def convert(self, sequence: Ordered) -> Ordered:
        """Return a sequence of ids, bytes or scores in the other order, if there is one; it is its own inverse."""
        return sequence[::-1] if self.backward else sequence

    def stop_bytes(self, stops: Sequence[str]) -> list[bytes]:
        """Return the bytes of stop strings in the order in which the network writes them."""
        return [self.convert(stop.encode("utf-8", "surrogateescape")) for stop in stops]

    def text_order(self, fragments: Iterable[Fragment]) -> Iterator[Fragment]:
        """Return what a network writes in the order of the text.

        A backward sample is one fragment, since its first character is written last.
        """
        return reverse_samples(fragments) if self.backward else iter(fragments)


def reverse_samples(fragments: Iterable[Fragment]) -> Iterator[Fragment]:
    """Yield each sample once it is complete, its bytes reversed."""
    texts: dict[int, bytearray] = defaultdict(bytearray)  # extended in place, however long a sample gets
    for fragment in fragments:
        texts[fragment.index] += fragment.text
        if fragment.stop_reason:
            yield replace(fragment, text=bytes(reversed(texts.pop(fragment.index))))
