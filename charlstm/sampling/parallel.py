"""Samples drawn by several processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from charlstm.sampling.fragments import Fragment
from charlstm.workers import Workers

Draw = Callable[[range], Iterator[Fragment]]
"""Draws the samples with these indices together."""


def draw_batches(draw: Draw, batches: Sequence[range], processes: int) -> Iterator[Fragment]:
    """Yield the fragments of all batches, of which as many as there are processes are drawn at once.

    The first of them is drawn by this process, so that its samples appear as they are written.
    """
    workers = Workers([lambda batch: join_fragments(draw(batch))] * (processes - 1))
    try:
        for k in range(0, len(batches), processes):
            for j in range(1, processes):
                workers.send_to(j - 1, batches[k + j])
            yield from draw(batches[k])
            for fragments in workers.receive():
                yield from fragments
    finally:
        workers.close()


def join_fragments(fragments: Iterable[Fragment]) -> list[Fragment]:
    """Return whole samples, one fragment each."""
    texts: dict[int, bytearray] = defaultdict(bytearray)
    samples = []
    for fragment in fragments:
        texts[fragment.index] += fragment.text
        if fragment.stop_reason:
            samples.append(replace(fragment, text=bytes(texts.pop(fragment.index))))
    return samples
