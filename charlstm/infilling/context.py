"""Rows of text read character by character from either end, and what two networks say of a place between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlstm.architecture import JOINT_HEAD
from charlstm.cells import Array
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.network import Ids, Network, OutputHead, States, select_rows
from charlstm.storage.model import ModelFile

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Context:
    """Where N rows have got to with one network: what its head reads now, [N, R], and the state."""

    head_input: Array
    states: States

    def advance(self, network: Network, ids: Ids, absent: Mask | None = None) -> Context:
        """One more character a row, [N], but for the rows that have none here."""
        after = Context(*network.advance(ids, self.states))
        if absent is None or not absent.any():
            return after
        stay = absent[:, None]
        kept = [
            tuple(np.where(stay, was, now) for was, now in zip(*pair, strict=True))
            for pair in zip(self.states, after.states, strict=True)
        ]
        return Context(np.where(stay, self.head_input, after.head_input), kept)

    def select(self, chosen: Ids) -> Context:
        """These of the rows, each as often as it is named."""
        return Context(self.head_input[chosen], select_rows(self.states, chosen))

    @classmethod
    def concatenate(cls, readings: Sequence[Context]) -> Context:
        """The rows of all of these, in their order."""
        states = [
            tuple(np.concatenate(parts) for parts in zip(*layers, strict=True))
            for layers in zip(*(reading.states for reading in readings), strict=True)
        ]
        return cls(np.concatenate([reading.head_input for reading in readings]), states)


def initial_context(network: Network, count: int) -> Context:
    """Rows that have read nothing."""
    states = network.initial_state(count)
    read, _ = network.advance(np.zeros(count, np.int64), states)
    return Context(np.zeros_like(read), states)


def log_likelihood(
    network: Network, reading: Context, columns: Iterable[tuple[Ids, Mask | None]]
) -> NDArray[np.float64]:
    """The natural log-probability of the characters of these columns, [N], where a row has one, read on from here."""
    total = np.zeros(len(reading.head_input))
    for ids, absent in columns:
        own = log_softmax(network.head.logits(reading.head_input))[np.arange(len(ids)), ids]
        total += own if absent is None else np.where(absent, 0, own)
        reading = reading.advance(network, ids, absent)
    return total


@dataclass(frozen=True)
class Predictors:
    """The networks of a model, each read from its own end; a unidirectional one has the first only."""

    forward: Network
    backward: Network | None
    joint: OutputHead | None
    non_characters: Ids
    """The ids that stand for no character: that of unknown ones, and that of a document's end."""

    @classmethod
    def from_file(cls, file: ModelFile) -> Predictors:
        vocabulary, config = file.vocabulary, file.config.model
        never = np.array([i for i in (vocabulary.unknown, vocabulary.end_of_document) if i is not None], np.int64)

        def network(half: ModelFile) -> Network:
            return Network(half.config.model, half.weights, vocabulary.end_of_document)

        forward = network(file.select_direction("forward"))
        if not config.bidirectional:
            return cls(forward, None, None, never)
        return cls(
            forward,
            network(file.select_direction("backward")),
            OutputHead.from_weights(file.weights, JOINT_HEAD, config.head == "tied"),
            never,
        )

    def mask_non_characters(self, logits: Array) -> Array:
        """The logits [N, V] with what is no character made impossible."""
        logits[:, self.non_characters] = -np.inf
        return logits
