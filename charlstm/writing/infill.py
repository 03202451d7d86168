"""What fits between the text before the cursor and the text after it, by a bidirectional model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from charlstm.infilling.context import Context, Predictors
from charlstm.infilling.filler import SCORED_CONTEXT, GapGroup
from charlstm.infilling.ranking import fill_gaps
from charlstm.matrices import Array
from charlstm.sampling.network import Network, States
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Ids

MAX_FILLING = 12
"""Most characters of a filling."""

ATTEMPTS = MAX_FILLING
"""Attempts at the gap, one of each length: fewer than `charlstm fill` makes, since they are made after every key."""

MAX_FILLINGS = 8
"""Fillings that are offered."""


class KeypressError(Exception):
    """A key was pressed while a filling was computed, which is now out of date."""


class InterruptibleNetwork(Network):
    """A network that raises KeypressError before a step if `is_interrupted` says so."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.is_interrupted: Callable[[], bool] = ignore_keys

    def advance(self, ids: Ids, states: States) -> tuple[Array, States]:
        """Read as `Network.advance` does. Raises KeypressError."""
        if self.is_interrupted():
            raise KeypressError
        return super().advance(ids, states)


def ignore_keys() -> bool:
    """Report that no key was pressed."""
    return False


class Infiller:
    """Fills the place of the cursor with 1 to `MAX_FILLING` characters, which depend on the seed and the text only."""

    def __init__(self, file: ModelFile, seed: int) -> None:
        self.vocabulary, self.seed = file.vocabulary, seed
        self.networks: list[InterruptibleNetwork] = []
        self.predictors = Predictors.from_file(file, self.make_network)

    def make_network(self, *arguments: Any) -> InterruptibleNetwork:
        self.networks.append(InterruptibleNetwork(*arguments))
        return self.networks[-1]

    @property
    def forward(self) -> Network:
        return self.networks[0]

    @property
    def backward(self) -> Network:
        return self.networks[1]

    def fill(
        self, before: Ids, after: Ids, left: Context, right: Context, is_interrupted: Callable[[], bool]
    ) -> list[str]:
        """Return the best fillings between two texts: those with the highest mean log-probability per character.

        The sum, by which `charlstm fill` ranks, would nearly always prefer one character to a word. The text next to a
        filling counts, too.

        left, right: what the networks have read of these texts, one row each.

        Raises KeypressError as soon as `is_interrupted` is true.
        """
        random = np.random.default_rng(self.seed)
        group = GapGroup.from_parts([before, after], [MAX_FILLING], open=False)
        lengths = np.arange(ATTEMPTS) % MAX_FILLING + 1
        batch = replace(group.repeat(left, right, ATTEMPTS, random), absent=np.arange(MAX_FILLING) >= lengths[:, None])
        for network in self.networks:
            network.is_interrupted = is_interrupted
        try:
            ranked = fill_gaps(self.predictors, batch, random)
        finally:
            for network in self.networks:
                network.is_interrupted = ignore_keys
        rows = ranked.rows.present_ids
        means = ranked.log_probability / ((rows >= 0).sum(1) + SCORED_CONTEXT)
        rows = rows[np.argsort(-means, kind="stable")[:MAX_FILLINGS]]
        texts = (self.vocabulary.decode(row[row >= 0]).decode("utf-8", "ignore") for row in rows)
        return [text for text in dict.fromkeys(texts) if text]
