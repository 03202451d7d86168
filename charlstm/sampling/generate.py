"""Samples from a network, as iterators: a batch of sequences advances together, a character at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from charlstm.cells import MAX_ROWWISE, Array
from charlstm.config import SamplingConfig
from charlstm.sampling.filters import log_softmax, mask_symbol, sample_ids
from charlstm.sampling.network import Ids, Network, States, prefill, select_rows
from charlstm.sampling.stop_strings import StopMatcher
from charlstm.vocabulary import Vocabulary

MAX_BATCH = MAX_ROWWISE
"""More samples than this are made in turns: the first appear sooner and memory stays bounded."""


@dataclass(frozen=True)
class Fragment:
    """A few characters of one sample. `end` is empty until its last fragment, which says why it ended.

    The end of a document is drawn like a character, and counts as one in the mean.
    """

    index: int
    text: bytes
    end: str = ""  # "length", "stop" or "document"
    mean_log_probability: float = 0.0  # nats a character so far, under the model itself: temperature 1, no filter


@dataclass
class SampleState:
    """One sample in the making."""

    index: int
    random: Random
    matcher: StopMatcher
    drawn: int = 0
    log_probability: float = 0.0

    def add_piece(self, piece: bytes, length: int, ended: bool) -> Fragment:
        """The fragment that one more drawn character makes, or the end of the document."""
        self.drawn += 1
        text = self.matcher.push(piece)
        mean = self.log_probability / self.drawn
        if self.matcher.stopped:
            return Fragment(self.index, text, "stop", mean)
        if ended:
            return Fragment(self.index, text + self.matcher.flush(), "document", mean)
        if self.drawn == length:
            return Fragment(self.index, text + self.matcher.flush(), "length", mean)
        return Fragment(self.index, text, "", mean)


def generate(
    network: Network,
    vocabulary: Vocabulary,
    prompt: Ids,
    config: SamplingConfig,
    *,
    seed: int,
    n: int = 1,
    stops: Sequence[str] = (),
    scored: bool = False,
    backward: bool = False,
) -> Iterator[Fragment]:
    """`n` samples that go on from the prompt, interleaved. A `config.length` of 0 has no end but a stop string.

    Where the vocabulary has a boundary, a sample ends with its document at the latest.

    `scored` works out the fragments' `mean_log_probability`, which costs some time.

    A network that writes `backward` reads the prompt from its end and writes what comes before it: the bytes of what
    it draws, and so of the stop strings, come last first (`charlstm.sampling.reversal` turns them round).

    What a sample draws depends on the seed and its own index, not on how many are made beside it.
    """
    order = -1 if backward else 1
    logits, states = prefill_prompt(network, vocabulary, prompt[::order])
    endings = [stop.encode("utf-8", "surrogateescape")[::order] for stop in stops]
    pieces = [piece[::order] for piece in vocabulary.symbols]
    for first in range(0, n, MAX_BATCH):
        indices = range(first, min(first + MAX_BATCH, n))
        writers = [SampleState(index, Random(f"{seed}/{index}"), StopMatcher(endings)) for index in indices]
        rows = np.zeros(len(writers), np.int64)
        yield from decode(network, vocabulary, pieces, writers, logits[rows], select_rows(states, rows), config, scored)


def decode(
    network: Network,
    vocabulary: Vocabulary,
    pieces: list[bytes],
    writers: list[SampleState],
    logits: Array,
    states: States,
    config: SamplingConfig,
    scored: bool,
) -> Iterator[Fragment]:
    """Advances a batch until every sample has ended. `logits` [N, V] are of each one's first character, and `pieces`
    what the ids are written as."""
    while True:
        log_p = log_softmax(logits) if scored else logits
        logits = mask_symbol(logits, vocabulary.unknown)
        ids = sample_ids(logits, config, np.array([writer.random.random() for writer in writers]))
        going = []
        for row, (writer, i) in enumerate(zip(writers, ids.tolist(), strict=True)):
            if scored:
                writer.log_probability += float(log_p[row, i])
            fragment = writer.add_piece(pieces[i], config.length, i == vocabulary.end_of_document)
            if not fragment.end:
                going.append(row)
            if fragment.text or fragment.end:
                yield fragment
        if not going:
            return
        if len(going) < len(writers):
            rows = np.array(going)
            writers, ids, states = [writers[row] for row in going], ids[rows], select_rows(states, rows)
        logits, states = network.step(ids, states)


def prefill_prompt(network: Network, vocabulary: Vocabulary, prompt: Ids) -> tuple[Array, States]:
    """Logits [1, V] and state after the start symbol and the prompt."""
    read, states = prefill(network, np.concatenate([[vocabulary.bos], prompt]))
    return network.head.logits(read), states
