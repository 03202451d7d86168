"""Generate samples: read the prompt, then draw a batch of samples, one character of each at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import ceil, inf
from time import monotonic

import numpy as np

from charlstm.config import Direction, SamplingConfig
from charlstm.matrices import MAX_ROWWISE, Array
from charlstm.sampling.filters import log_softmax, mask_symbol, mask_symbols, sample_ids
from charlstm.sampling.fragments import Fragment, Sample
from charlstm.sampling.mixture import MAX_RUN_LENGTH, Mixture, follow
from charlstm.sampling.network import States, SymbolReader, prefill, select_rows
from charlstm.sampling.reading_order import ReadingOrder
from charlstm.sampling.repeats import RepeatIndex
from charlstm.vocabulary import Ids, Vocabulary

MAX_BATCH = MAX_ROWWISE
"""Samples drawn at once. More are drawn batch after batch: the first appear sooner, and memory is bounded."""


DECIDE_AFTER = 0.05
"""Seconds of one sample after which it is decided whether to continue with compiled steps."""

LOAD_FROM = 0.4
"""Seconds of sampling to come from which that pays: importing llvmlite takes 0.1, and the rest half as long or less."""

COMPILE_FROM = 2.0
"""The same where numba has still to compile the steps, which takes as long, once on a machine."""


def generate(
    network: SymbolReader,
    vocabulary: Vocabulary,
    prompt: Ids,
    config: SamplingConfig,
    *,
    seed: int,
    n: int = 1,
    stops: Sequence[str] = (),
    scored: bool = False,
    direction: Direction = "forward",
    processes: int = 1,
    mixture: Mixture | None = None,
) -> Iterator[Fragment]:
    """Yield the fragments of `n` samples that continue the prompt, interleaved.

    A sample ends before a stop string, after `config.length` characters (0 is no limit), with its document, or where
    `config.no_repeat` leaves no character. The characters depend on the seed and the index of the sample, not on `n`.

    network: one that reads in `direction`.
    prompt: ids in text order, [length].
    stops: strings before which a sample ends.
    scored: compute the fragments' `mean_log_probability`, which takes some time.
    direction: "backward" writes what comes before the prompt. Each sample is then one fragment.
    processes: how many share the samples. A sample of another process is one fragment.
    mixture: draw from the mixture of the network with these n-grams. The samples add no counts to it.
    """
    order = ReadingOrder(direction)
    decoder = Decoder(network, vocabulary, config, order, scored, mixture)
    return order.text_order(decoder.generate(prompt, stops, seed, n, processes))


class Decoder:
    """Draws characters from a network, in the order in which the network writes them."""

    def __init__(
        self,
        network: SymbolReader,
        vocabulary: Vocabulary,
        config: SamplingConfig,
        order: ReadingOrder,
        scored: bool,
        mixture: Mixture | None,
    ) -> None:
        self.network, self.vocabulary, self.config, self.order, self.scored = network, vocabulary, config, order, scored
        self.mixture = mixture
        self.symbols = [order.convert(symbol) for symbol in vocabulary.symbols]

    def generate(self, prompt: Ids, stops: Sequence[str], seed: int, n: int, processes: int) -> Iterator[Fragment]:
        """Read the prompt once, then draw `n` samples, a batch at a time in each process."""
        prompt = self.order.convert(prompt)
        head_input, states = prefill(self.network, np.concatenate([[self.vocabulary.bos], prompt]))
        logits = self.network.head.logits(head_input)
        stop_bytes, before = self.order.stop_bytes(stops), tuple(prompt[: -MAX_RUN_LENGTH - 1 : -1].tolist())
        repeats = RepeatIndex(self.config.no_repeat, prompt.tolist()) if self.config.no_repeat else None

        def draw(indices: range) -> Iterator[Fragment]:
            samples = [Sample.begin(seed, index, stop_bytes, repeats and repeats.branch(), before) for index in indices]
            rows = np.zeros(len(samples), np.int64)  # every sample starts from the one state after the prompt
            return self.decode(samples, logits[rows], select_rows(states, rows))

        count = processes * ceil(n / (MAX_BATCH * processes))  # each process draws as many batches
        batches = [range(n * k // count, n * (k + 1) // count) for k in range(count)]
        if processes > 1:
            from charlstm.sampling.parallel import draw_batches  # multiprocessing would slow down every start

            yield from draw_batches(draw, batches, processes)
        else:
            for indices in batches:
                yield from draw(indices)

    def decode(self, samples: list[Sample], logits: Array, states: States) -> Iterator[Fragment]:
        """Draw one character of each sample at a time until all have ended.

        `logits` [N, V] predict the first character.
        """
        end_of_document = self.vocabulary.end_of_document
        started, is_decided = monotonic(), len(samples) > 1 or not self.network.quantized
        while True:
            drawn = samples[0].drawn
            if not is_decided and drawn and (seconds := monotonic() - started) > DECIDE_AFTER:
                is_decided, to_come = True, seconds * ((self.config.length or inf) / drawn - 1)
                if to_come > LOAD_FROM:
                    speed_up(self.network, compiling=to_come > COMPILE_FROM)
            if self.mixture is not None:
                logits = self.mix(self.mixture, samples, logits)
            log_p = log_softmax(logits) if self.scored else None
            u = np.array([sample.random.random() for sample in samples])
            drawable, exhausted = self.mask_excluded(samples, logits)
            ids = sample_ids(drawable, self.config, u)
            continuing = []
            for row, (sample, i) in enumerate(zip(samples, ids.tolist(), strict=True)):
                if row in exhausted:
                    yield sample.end_before_repeat()
                    continue
                if log_p is not None:
                    sample.log_probability += float(log_p[row, i])
                if sample.repeats is not None:
                    sample.repeats.add(i)
                sample.before = follow(sample.before, i)
                fragment = sample.add(self.symbols[i], self.config.length, i == end_of_document)
                if not fragment.stop_reason:
                    continuing.append(row)
                if fragment.text or fragment.stop_reason:
                    yield fragment
            if not continuing:
                return
            if len(continuing) < len(samples):
                rows = np.array(continuing)
                samples, ids, states = [samples[row] for row in continuing], ids[rows], select_rows(states, rows)
            logits, states = self.network.step(ids, states)

    def mix(self, mixture: Mixture, samples: Sequence[Sample], logits: Array) -> Array:
        """Return the logits of the mixture, [N, V], from those of the network."""
        rows = zip(samples, log_softmax(logits), strict=True)
        return np.stack([mixture.predict_after(sample.before, row)[1] for sample, row in rows]).astype(np.float32)

    def mask_excluded(self, samples: list[Sample], logits: Array) -> tuple[Array, list[int]]:
        """Return logits under which no symbol is possible that must not be drawn, and the rows that have no other.

        The logits of these rows are unchanged; nothing is to be drawn from them.
        """
        drawable = mask_symbol(logits, self.vocabulary.unknown)
        if not self.config.no_repeat:
            return drawable, []
        repeating = [sample.repeats.repeating_symbols() for sample in samples if sample.repeats]
        if not any(repeating):
            return drawable, []
        drawable = mask_symbols(drawable, repeating)
        exhausted = np.flatnonzero(np.isneginf(drawable.max(axis=1)))
        drawable[exhausted] = logits[exhausted]
        return drawable, exhausted.tolist()


def speed_up(reader: SymbolReader, *, compiling: bool) -> None:
    """Use compiled steps of quantized networks, if numba is installed. The samples stay the same.

    compiling: compile those that are not yet on this machine.
    """
    with suppress(ImportError):
        from charlstm.sampling.compiled import compile_network  # imports llvmlite

        for network in reader.networks:
            compile_network(network, compiling=compiling)
