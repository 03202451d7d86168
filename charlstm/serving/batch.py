"""The batch: in a step every row reads one symbol, the next one of its prompt or the one that was just drawn.

A row does not depend on the others (see `charlstm.matrices`), so that a text is the same whoever else is served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from charlstm.matrices import MAX_ROWWISE, Array
from charlstm.sampling.filters import log_softmax, mask_symbol, sample_ids
from charlstm.sampling.fragments import Sample
from charlstm.sampling.network import States, SymbolReader, select_rows
from charlstm.serving.jobs import Job, SymbolScore
from charlstm.vocabulary import Ids, Vocabulary

MAX_ACTIVE = MAX_ROWWISE
"""Rows of a batch. With more, a row of floats would depend on the others."""


@dataclass(slots=True, eq=False)
class Slot:
    """A row of the batch: what it reads, how far it has read, and the samples to draw once it has read all."""

    job: Job
    symbols: Sequence[int]
    samples: list[Sample]
    place: int = 0


class SymbolDraw(NamedTuple):
    """A symbol to draw for a sample."""

    place: int
    """The row of the logits."""
    row: int
    """The row of the batch, whose state the sample continues from."""
    job: Job
    sample: Sample


class StepBatch:
    """The jobs that share one network. Jobs for which there is no room wait for their turn, in order."""

    def __init__(self, network: SymbolReader, vocabulary: Vocabulary) -> None:
        self.network, self.vocabulary = network, vocabulary
        self.slots: list[Slot] = []
        self.states: States = network.initial_state(0)
        self.waiting: deque[Job] = deque()
        self.active: list[Job] = []

    @property
    def is_busy(self) -> bool:
        return bool(self.waiting or self.active)

    def step(self) -> list[Job]:
        """Read one symbol per row and draw what follows it. Return the jobs that are active."""
        self.drop_cancelled()
        self.admit_waiting()
        if not self.slots:
            return []
        ids = np.array([slot.symbols[slot.place] for slot in self.slots])
        head_input, states = self.network.advance(ids, self.states)
        following, predicting = [], []
        for row, slot in enumerate(self.slots):
            slot.place += 1
            is_reading = slot.place < len(slot.symbols)
            if is_reading:
                following.append((row, slot))
            if slot.job.targets or not is_reading:
                predicting.append((row, slot))
        if predicting:
            following += self.predict(predicting, head_input)
        self.replace_slots(following, states)
        jobs, self.active = self.active, [job for job in self.active if job.open]
        return jobs

    def predict(self, predicting: list[tuple[int, Slot]], head_input: Array) -> list[tuple[int, Slot]]:
        """Score the next symbol of some rows, or draw it. Return a slot for each sample that continues, with its row.

        A slot that has read its prompt becomes one slot per sample.
        """
        if len(predicting) < len(head_input):
            head_input = head_input[[row for row, _ in predicting]]
        logits = self.network.head.logits(head_input)
        log_p = log_softmax(logits) if any(slot.job.top is not None for _, slot in predicting) else None
        draws = []
        for place, (row, slot) in enumerate(predicting):
            job = slot.job
            if job.targets and log_p is not None:
                job.prompt_scores.append(score_symbol(log_p[place], job.targets[slot.place - 1], job.top))
            if slot.place == len(slot.symbols):
                draws += [SymbolDraw(place, row, job, sample) for sample in slot.samples]
                if not slot.samples:
                    job.open = 0
        return self.draw(draws, logits, log_p) if draws else []

    def draw(self, draws: list[SymbolDraw], logits: Array, log_p: Array | None) -> list[tuple[int, Slot]]:
        """Draw a symbol for each sample. Return a slot for each one that continues, with its row."""
        continuing = []
        symbols, end_of_document = self.vocabulary.symbols, self.vocabulary.end_of_document
        for (place, row, job, sample), i in zip(draws, self.draw_symbols(draws, logits), strict=True):
            fragment = sample.add(symbols[i], job.config.length, i == end_of_document)
            score = None if log_p is None or job.top is None else score_symbol(log_p[place], i, job.top)
            if fragment.text or fragment.stop_reason or score:
                job.outputs.append((fragment, score))
            if fragment.stop_reason:
                job.open -= 1
            else:
                continuing.append((row, Slot(job, (i,), [sample])))
        return continuing

    def draw_symbols(self, draws: list[SymbolDraw], logits: Array) -> list[int]:
        """Return the symbol drawn for each sample. Those with the same filters are drawn together."""
        u = np.array([draw.sample.random.random() for draw in draws])
        drawable = mask_symbol(logits[[draw.place for draw in draws]], self.vocabulary.unknown)
        groups: dict[tuple[float, ...], list[int]] = {}
        for k, draw in enumerate(draws):
            groups.setdefault(draw.job.filters, []).append(k)
        drawn = np.empty(len(draws), np.int64)
        for members in groups.values():
            drawn[members] = sample_ids(drawable[members], draws[members[0]].job.config, u[members])
        found: list[int] = drawn.tolist()
        return found

    def drop_cancelled(self) -> None:
        """Free the rows of cancelled jobs."""
        if any(job.cancelled for job in self.waiting):
            self.waiting = deque(job for job in self.waiting if not job.cancelled)
        if any(job.cancelled for job in self.active):
            self.active = [job for job in self.active if not job.cancelled]
            kept = [(row, slot) for row, slot in enumerate(self.slots) if not slot.job.cancelled]
            self.replace_slots(kept, self.states)

    def admit_waiting(self) -> None:
        """Give rows to waiting jobs, in order, as far as there is room."""
        room = MAX_ACTIVE - sum(job.rows for job in self.active)
        admitted = []
        while self.waiting and self.waiting[0].rows <= room:
            job = self.waiting.popleft()
            room -= job.rows
            admitted.append(job)
        if admitted:
            self.active = [*self.active, *admitted]
            self.slots = [*self.slots, *(Slot(job, job.symbols, job.samples) for job in admitted)]
            self.states = append_rows(self.states, self.network.initial_state(len(admitted)))

    def replace_slots(self, kept: list[tuple[int, Slot]], states: States) -> None:
        """Continue with these slots, each from a row of the state."""
        rows = [row for row, _ in kept]
        changed = rows != list(range(len(self.slots)))
        self.states = select_rows(states, np.array(rows, np.int64)) if changed else states
        self.slots = [slot for _, slot in kept]

    def clear(self, error: Exception) -> list[Job]:
        """End every job with an error, and return them."""
        jobs = [*self.active, *self.waiting]
        for job in jobs:
            job.error, job.open = error, 0
        self.waiting.clear()
        self.active, self.slots, self.states = [], [], self.network.initial_state(0)
        return jobs


def append_rows(states: States, more: States) -> States:
    return [
        tuple(np.concatenate(parts) for parts in zip(*layers, strict=True)) for layers in zip(states, more, strict=True)
    ]


def score_symbol(log_p: Array, symbol: int, top: int | None) -> SymbolScore:
    """Return the score of a symbol, given the log-probabilities of all, [V]."""
    likeliest: Ids = np.argsort(-log_p, kind="stable")[:top] if top else np.empty(0, np.int64)
    pairs = tuple(zip(likeliest.tolist(), log_p[likeliest].tolist(), strict=True))
    return SymbolScore(symbol, float(log_p[symbol]), pairs)
