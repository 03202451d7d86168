"""The networks of a model as predictors of a gap, and what N rows of text have read so far from either end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlstm.architecture import JOINT_HEAD
from charlstm.matrices import Array
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.network import Network, OutputHead, States, SymbolReader, select_rows
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Ids

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Predictors:
    """The networks of a model, each of which reads from its own end. A unidirectional model has the first only."""

    forward: Network
    backward: Network | None
    joint: OutputHead | None
    non_characters: Ids
    """The ids that are never filled in: the unknown symbol and the end-of-document symbol."""

    @classmethod
    def from_file(cls, file: ModelFile, make: Callable[..., Network] = Network) -> Predictors:
        """Build the networks of a model file: `make` is `Network` or a subclass."""
        vocabulary, config = file.vocabulary, file.config.model
        symbols = [i for i in (vocabulary.unknown, vocabulary.end_of_document) if i is not None]
        non_characters = np.array(symbols, np.int64)

        def build(half: ModelFile) -> Network:
            return make(half.config.model, half.weights, vocabulary.end_of_document)

        forward = build(file.select_direction("forward"))
        if not config.bidirectional:
            return cls(forward, None, None, non_characters)
        backward = build(file.select_direction("backward"))
        joint = OutputHead.from_weights(file.weights, JOINT_HEAD, config.head == "tied")
        return cls(forward, backward, joint, non_characters)

    def mask_non_characters(self, logits: Array) -> Array:
        """Return logits [N, V] under which only characters are possible."""
        masked = logits.copy()
        masked[:, self.non_characters] = -np.inf
        return masked


@dataclass(frozen=True)
class Context:
    """What N rows have read with one network: the input of its head now, [N, R], and its state."""

    head_input: Array
    states: States

    def advance(self, network: SymbolReader, ids: Ids, absent: Mask | None = None) -> Context:
        """Read one more character per row, [N]. Rows that are `absent` read none."""
        after = Context(*network.advance(ids, self.states))
        if absent is None or not absent.any():
            return after
        stay = absent[:, None]
        states = [
            tuple(np.where(stay, old, new) for old, new in zip(*pair, strict=True))
            for pair in zip(self.states, after.states, strict=True)
        ]
        return Context(np.where(stay, self.head_input, after.head_input), states)

    def select(self, rows: Ids) -> Context:
        """Return these rows. A row may be selected several times."""
        return Context(self.head_input[rows], select_rows(self.states, rows))

    @classmethod
    def concatenate(cls, contexts: Sequence[Context]) -> Context:
        """Return the rows of all contexts in order."""
        states = [
            tuple(np.concatenate(parts) for parts in zip(*layers, strict=True))
            for layers in zip(*(context.states for context in contexts), strict=True)
        ]
        return cls(np.concatenate([context.head_input for context in contexts]), states)


def initial_context(network: Network, count: int) -> Context:
    """Return `count` rows that have read nothing."""
    states = network.initial_state(count)
    head_input, _ = network.advance(np.zeros(count, np.int64), states)
    return Context(np.zeros_like(head_input), states)


def log_likelihood(
    network: Network,
    context: Context,
    columns: Iterable[tuple[Ids, Mask | None]],
    on_step: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Return the natural log-probability of the characters in `columns` after a context, [N].

    A column is the ids of the next character of each row, [N], and the rows where it is absent. `on_step` is called
    after each.
    """
    total = np.zeros(len(context.head_input))
    for ids, absent in columns:
        log_p = log_softmax(network.head.logits(context.head_input))[np.arange(len(ids)), ids]
        total += log_p if absent is None else np.where(absent, 0, log_p)
        context = context.advance(network, ids, absent)
        on_step()
    return total
