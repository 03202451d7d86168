"""A corpus as ids, cut by position into the parts to train on, to validate with and to test with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CharlstmError
from charlstm.vocabulary import Text, Vocabulary

PARTS = ("train", "val", "test")

Tokens = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class TokenStore:
    """The ids of a whole corpus, [length], and the shares of its parts."""

    ids: Tokens
    split: tuple[float, ...]

    @classmethod
    def of(cls, text: Text, vocabulary: Vocabulary, split: tuple[float, ...]) -> TokenStore:
        """In the smallest unsigned type that holds every id. Raises CharlstmError if none are left to validate with."""
        span = cls.span_of(len(text), split, "val")
        if span.start == span.stop:
            raise CharlstmError(
                f"the corpus has {len(text):,} characters, and to validate with a share of {split[1]} it needs "
                f"at least {ceil(1 / split[1]):,}",
                "give it more text, or raise the second share of --split",
            )
        ids = vocabulary.encode(text)
        return cls(ids.astype(np.min_scalar_type(vocabulary.size - 1)), split)

    def part(self, name: str) -> Tokens:
        """The ids of `train`, `val` or `test`: a view. Empty for a part that the split does not have."""
        return self.ids[self.span_of(len(self.ids), self.split, name)]

    @staticmethod
    def span_of(length: int, split: tuple[float, ...], name: str) -> slice:
        """Where that part lies in a corpus of this length."""
        edges = [0, *(round(length * share) for share in accumulate(split))]
        spans = dict(zip(PARTS, pairwise(edges), strict=False))
        return slice(*spans.get(name, (0, 0)))
