"""The metrics of a text under a model, and the scores of its characters."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from math import exp, log
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlstm.evaluation.streams import IdSequence, Places
from charlstm.vocabulary import Ids

Predicted = TypeVar("Predicted", bound=NDArray[Any])

MAX_EXPONENT = 700.0
"""e to the power of more than this overflows float64."""


@dataclass(frozen=True)
class Metrics:
    """The metrics of a text under a model. Those after `total_nats` are of a bidirectional model; else they are None.

    `pseudo_likelihood_nats` is minus the mean log-probability of a character given all the others (Besag 1975). It is
    no likelihood of the text: do not compare it with `loss_nats`. An accuracy is the share of characters that are the
    most likely ones (top-1), given those before them or given all the others.
    """

    characters: int
    bytes: int  # of the text in UTF-8
    total_nats: float  # minus the sum of the log-probabilities
    backward_total_nats: float | None = None  # the same when the text is read from its end
    pseudo_likelihood_nats: float | None = None
    forward_accuracy: float | None = None
    both_sides_accuracy: float | None = None

    @property
    def loss_nats(self) -> float:
        """Mean negative natural log-likelihood per character."""
        return self.total_nats / self.characters

    @property
    def bpc(self) -> float:
        """Bits per character."""
        return self.loss_nats / log(2)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of the text in UTF-8, as for a compressor."""
        return self.total_nats / log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """Per-character perplexity, e^loss_nats."""
        return exp(min(self.loss_nats, MAX_EXPONENT))

    @property
    def backward_loss_nats(self) -> float | None:
        """Mean negative natural log-likelihood per character, read from the end."""
        return None if self.backward_total_nats is None else self.backward_total_nats / self.characters

    @property
    def backward_bpc(self) -> float | None:
        """Bits per character, read from the end."""
        return None if self.backward_loss_nats is None else self.backward_loss_nats / log(2)

    def one_sided(self) -> dict[str, float]:
        """Return the metrics of every model by their JSON keys."""
        return {
            "characters": self.characters,
            "bytes": self.bytes,
            "loss_nats": self.loss_nats,
            "bpc": self.bpc,
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
        }

    def two_sided(self) -> dict[str, float]:
        """Return the metrics that only a bidirectional model has by their JSON keys."""
        found = {
            "backward_loss_nats": self.backward_loss_nats,
            "backward_bpc": self.backward_bpc,
            "pseudo_likelihood_nats": self.pseudo_likelihood_nats,
            "forward_accuracy": self.forward_accuracy,
            "both_sides_accuracy": self.both_sides_accuracy,
        }
        return {key: value for key, value in found.items() if value is not None}

    def to_dict(self) -> dict[str, float]:
        """Return all metrics by their JSON keys."""
        return self.one_sided() | self.two_sided()


@dataclass
class Scores:
    """The scores of each character of a text, [length]."""

    log_probability: NDArray[np.float32]  # natural
    rank: NDArray[np.int64]  # 1 is the most likely
    expected: NDArray[np.int64]  # the id of the most likely symbol there

    @classmethod
    def empty(cls, length: int) -> Scores:
        """Allocate the scores of a text of this length."""
        return cls(np.empty(length, np.float32), np.empty(length, np.int64), np.empty(length, np.int64))

    def set_at(self, places: Places, other: Scores) -> None:
        """Copy the scores of the characters at these places from `other`."""
        self.log_probability[places] = other.log_probability
        self.rank[places] = other.rank
        self.expected[places] = other.expected


def with_symbols(windows: Iterable[Predicted], ids: IdSequence) -> Generator[tuple[Predicted, Ids]]:
    """Yield each window of the distributions over a text, [n, V], with the symbols that are there, [n].

    The windows are consecutive. ids: the text, [length].
    """
    place = 0
    for window in windows:
        yield window, ids[np.arange(place, place + len(window))].astype(np.int64)
        place += len(window)


def log_probabilities_of(symbols: Ids, distributions: NDArray[Any]) -> NDArray[Any]:
    """Return the log-probabilities of the symbols [n] under distributions [n, V]."""
    return distributions[np.arange(len(symbols)), symbols]


def sum_nats(windows: Iterable[tuple[NDArray[Any], Ids]]) -> float:
    """Return minus the sum of the log-probabilities of the symbols [n] under their distributions [n, V]."""
    return -sum(float(log_probabilities_of(symbols, window).sum(dtype="float64")) for window, symbols in windows)


class TextScores(NamedTuple):
    """The scores of each character given those before it and, with a bidirectional model, given all the others."""

    forward: Scores
    both_sides: Scores | None = None
