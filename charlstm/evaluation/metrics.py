"""What an evaluation comes to."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Metrics:
    """The figures of a text under a model."""

    characters: int
    bytes: int  # of the text in UTF-8
    nats: float  # minus the sum of the log-probabilities

    @property
    def loss_nats(self) -> float:
        """Mean negative natural log-likelihood per character."""
        return self.nats / self.characters

    @property
    def bpc(self) -> float:
        """Bits per character."""
        return self.loss_nats / log(2)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of the text in UTF-8: what a compressor's figure compares with."""
        return self.nats / log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        return exp(min(self.loss_nats, 700))

    def to_dict(self) -> dict[str, float]:
        """The figures under the names that JSON output gives them."""
        names = ("characters", "bytes", "loss_nats", "bpc", "bits_per_byte", "perplexity")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Scores:
    """What each character of a text was worth to the model, [length]."""

    log_probability: NDArray[np.float32]  # natural
    rank: NDArray[np.int64]  # 1 for the likeliest
    likeliest: NDArray[np.int64]  # id

    @classmethod
    def empty(cls, length: int) -> Scores:
        """Room for those of a text."""
        return cls(np.empty(length, np.float32), np.empty(length, np.int64), np.empty(length, np.int64))

    def set_at(self, places: NDArray[np.int64], other: Scores) -> None:
        """Takes over those of the characters at these places."""
        self.log_probability[places] = other.log_probability
        self.rank[places] = other.rank
        self.likeliest[places] = other.likeliest
