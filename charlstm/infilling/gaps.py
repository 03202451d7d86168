"""N attempts at the gaps of a text."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from charlstm.infilling.context import Context, Mask
from charlstm.matrices import Array
from charlstm.sampling.filters import greedy, logits_to_weights, sample_categorical
from charlstm.vocabulary import Ids


@dataclass(frozen=True)
class GapBatch:
    """N rows of text with the same n places, some of them hidden, and the fixed text on both sides.

    A row is an attempt at one of several texts, the one that `problem` names. A row has no character where it is
    `absent`: gaps of unknown length are shorter in some rows than in others.
    """

    problem: Ids  # [N]
    ids: Ids  # [N, n]; arbitrary where nothing was drawn yet
    hidden: Mask  # [n]
    absent: Mask  # [N, n]
    before: Ids  # [N, b], the fixed characters before, as many as are scored
    after: Ids  # [N, a]
    left: Context  # the forward network's, before the first place
    right: Context | None  # the backward network's, after the last place; None for a unidirectional model

    def select(self, rows: Ids) -> GapBatch:
        """Return these rows. A row may be selected several times."""
        return replace(
            self,
            problem=self.problem[rows],
            ids=self.ids[rows],
            absent=self.absent[rows],
            before=self.before[rows],
            after=self.after[rows],
            left=self.left.select(rows),
            right=self.right.select(rows) if self.right else None,
        )

    def with_ids(self, ids: Ids) -> GapBatch:
        """Return the same rows with other characters, [N, n]."""
        return replace(self, ids=ids)

    @property
    def present_ids(self) -> Ids:
        """The ids, -1 where absent, [N, n]: equal for rows with the same text."""
        return np.where(self.absent, -1, self.ids)


def draw_ids(logits: Array, temperature: float, random: np.random.Generator) -> Ids:
    """Draw one id per row of logits [N, V]; at temperature 0 the most likely."""
    if temperature == 0:
        return greedy(logits)
    return sample_categorical(logits_to_weights(logits, temperature), random.random(len(logits)))
