"""Rows of text read character by character from either end, and what two networks say of a place between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlstm.cells import Array
from charlstm.modelfile import ModelFile
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.network import Head, Ids, Network, States, select

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Reading:
    """Where N rows have got to with one network: what its head reads now, [N, R], and the state."""

    read: Array
    states: States

    def on(self, network: Network, ids: Ids, absent: Mask | None = None) -> Reading:
        """One more character a row, [N], but for the rows that have none here."""
        after = Reading(*network.read(ids, self.states))
        if absent is None or not absent.any():
            return after
        stay = absent[:, None]
        kept = [
            tuple(np.where(stay, was, now) for was, now in zip(*pair, strict=True))
            for pair in zip(self.states, after.states, strict=True)
        ]
        return Reading(np.where(stay, self.read, after.read), kept)

    def rows(self, chosen: Ids) -> Reading:
        """These of the rows, each as often as it is named."""
        return Reading(self.read[chosen], select(self.states, chosen))

    @classmethod
    def joined(cls, readings: Sequence[Reading]) -> Reading:
        """The rows of all of these, in their order."""
        states = [
            tuple(np.concatenate(parts) for parts in zip(*layers, strict=True))
            for layers in zip(*(reading.states for reading in readings), strict=True)
        ]
        return cls(np.concatenate([reading.read for reading in readings]), states)


def fresh(network: Network, count: int) -> Reading:
    """Rows that have read nothing."""
    states = network.start(count)
    read, _ = network.read(np.zeros(count, np.int64), states)
    return Reading(np.zeros_like(read), states)


def likelihood(network: Network, reading: Reading, columns: Iterable[tuple[Ids, Mask | None]]) -> NDArray[np.float64]:
    """The natural log-probability of the characters of these columns, [N], where a row has one, read on from here."""
    total = np.zeros(len(reading.read))
    for ids, absent in columns:
        own = log_softmax(network.head.predict(reading.read))[np.arange(len(ids)), ids]
        total += own if absent is None else np.where(absent, 0, own)
        reading = reading.on(network, ids, absent)
    return total


@dataclass(frozen=True)
class Sides:
    """The networks of a model, each read from its own end; a unidirectional one has the first only."""

    forward: Network
    backward: Network | None
    joint: Head | None
    never: Ids
    """The ids that stand for no character: that of unknown ones, and that of a document's end."""

    @classmethod
    def of(cls, file: ModelFile) -> Sides:
        vocabulary, config = file.vocabulary, file.config.model
        never = np.array([i for i in (vocabulary.unknown, vocabulary.boundary) if i is not None], np.int64)

        def network(half: ModelFile) -> Network:
            return Network(half.config.model, half.weights, vocabulary.boundary)

        forward = network(file.half("forward"))
        if not config.bidirectional:
            return cls(forward, None, None, never)
        return cls(forward, network(file.half("backward")), Head.joint(file.weights, config.head == "tied"), never)

    def character(self, logits: Array) -> Array:
        """The logits [N, V] with what is no character made impossible."""
        logits[:, self.never] = -np.inf
        return logits
