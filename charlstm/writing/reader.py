"""The text that a network has read, with its state at the places that the cursor may return to.

The state of a place is kept until it has not been used for long, so that neither backspace nor a small edit reads the
text before it again. Of older places, every `SPARSE`-th is kept: the cursor is never further from one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from charlstm.infilling.context import Context
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.network import SymbolReader, prefill
from charlstm.vocabulary import Ids

MAX_RECENT = 1024
"""Places of which the state is kept: 8 MB with two layers of 512 LSTM units."""

SPARSE = 64
"""Symbols between two older places of which the state is kept."""


class Reader:
    """What a network has read of a text that changes. Place n is the one after n symbols, [0, length of the text].

    surprises: minus the natural log-probability of each symbol given those before it, [length]; NaN until it was read.
        After an edit, the symbols behind it keep their values until they are read again.
    """

    def __init__(self, network: SymbolReader, bos: int) -> None:
        self.network = network
        self.ids: Ids = np.zeros(0, np.int64)
        self.surprises: NDArray[np.float32] = np.zeros(0, np.float32)
        self.scored = 0  # symbols at the beginning whose surprise is that of this text
        self.recent: OrderedDict[int, Context] = OrderedDict()
        self.sparse = {0: Context(*prefill(network, np.array([bos])))}

    def replace_text(self, ids: Ids) -> None:
        """Take another text, [length]. What was read of the part that both begin with stays read."""
        common = count_common(self.ids, ids)
        for contexts in (self.recent, self.sparse):
            for place in [place for place in contexts if place > common]:
                del contexts[place]
        surprises = np.full(len(ids), np.nan, np.float32)
        behind = min(count_common(self.ids[::-1], ids[::-1]), len(ids) - common)
        surprises[len(ids) - behind :] = self.surprises[len(self.ids) - behind :]
        surprises[:common] = self.surprises[:common]
        self.ids, self.surprises, self.scored = ids, surprises, min(self.scored, common)

    def find_context(self, place: int) -> Context | None:
        """Return what the network has read at a place; None before `read_to` has read it."""
        if place in self.recent:
            self.recent.move_to_end(place)
            return self.recent[place]
        return self.sparse.get(place)

    def read_to(self, place: int, *, ahead: bool = False) -> Iterator[None]:
        """Read up to a place from the nearest one before it whose state is kept. Yields after each symbol.

        ahead: the cursor is not there: keep the state of every `SPARSE`-th place only.
        """
        at = max(known for contexts in (self.recent, self.sparse) for known in contexts if known <= place)
        context = self.find_context(at)
        assert context is not None
        while at < place:
            symbol = self.ids[at : at + 1]
            if at >= self.scored:
                self.scored = at + 1
                logits = self.network.head.logits(context.head_input)
                self.surprises[at] = -log_softmax(logits)[0, symbol[0]]
            context = context.advance(self.network, symbol)
            at += 1
            self.keep(at, context, ahead)
            yield

    def keep(self, place: int, context: Context, ahead: bool) -> None:
        if place % SPARSE == 0:
            self.sparse[place] = context
            return
        if ahead:
            return
        self.recent[place] = context
        if len(self.recent) > MAX_RECENT:
            self.recent.popitem(last=False)


def count_common(first: Ids, second: Ids) -> int:
    """Return how many symbols two texts have in common at their beginning."""
    length = min(len(first), len(second))
    same = first[:length] == second[:length]
    return length if same.all() else int(same.argmin())
