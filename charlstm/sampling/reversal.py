"""Samples that are written from their end: nobody can read them before their beginning is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from charlstm.sampling.generate import Fragment


def reverse_fragments(fragments: Iterable[Fragment]) -> Iterator[Fragment]:
    """Each sample in one piece and in reading order, of fragments whose bytes come last first."""
    texts: dict[int, bytearray] = defaultdict(bytearray)  # grows in place, however long a sample gets
    for fragment in fragments:
        texts[fragment.index] += fragment.text
        if fragment.end:
            yield replace(fragment, text=bytes(reversed(texts.pop(fragment.index))))
