"""Two networks as one: the mean of their distributions, which is better than either if their errors differ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from charlstm.matrices import Array
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.network import Network, OutputHead, States
from charlstm.vocabulary import Ids


class AveragedHead(NamedTuple):
    """The output layers of both networks. The first `width` inputs are those of the first one."""

    first: OutputHead
    second: OutputHead
    width: int

    def logits(self, x: Array) -> Array:
        """Return the log-probabilities of the mean, [N, V], from the inputs of both, [N, R]."""
        first, second = self.first.logits(x[:, : self.width]), self.second.logits(x[:, self.width :])
        return average(log_softmax(first), log_softmax(second))


class AveragedNetwork:
    """Reads with two networks of the same vocabulary, and predicts the mean of their distributions."""

    def __init__(self, first: Network, second: Network) -> None:
        self.first, self.second, self.quantized = first, second, first.quantized
        self.networks = (first, second)
        width = first.config.hidden * (first.config.layers if first.config.head == "all" else 1)
        self.head = AveragedHead(first.head, second.head, width)

    def initial_state(self, n: int) -> States:
        """Return the states of both networks for `n` sequences, those of the first one first."""
        return self.first.initial_state(n) + self.second.initial_state(n)

    def step(self, ids: Ids, states: States) -> tuple[Array, States]:
        """Read one id per sequence, [N]. Return the log-probabilities of the next one, [N, V], and the states."""
        head_input, after = self.advance(ids, states)
        return self.head.logits(head_input), after

    def advance(self, ids: Ids, states: States) -> tuple[Array, States]:
        """Read one id per sequence, [N]. Return the inputs of both heads, [N, R], and the states."""
        count = len(self.first.initial_state(0))
        x_first, first = self.first.advance(ids, states[:count])
        x_second, second = self.second.advance(ids, states[count:])
        return np.concatenate([x_first, x_second], 1), first + second


def average(first: Array, second: Array) -> Array:
    """Return the log-probabilities of the mean of two distributions, [n, V], given theirs."""
    return np.logaddexp(first, second) - np.float32(np.log(2))
