"""A text as a model reads it, and as a reader sees it: symbols and characters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from charlstm.inspection.trace import PredictionTrace, Trace
from charlstm.matrices import Array
from charlstm.vocabulary import Ids, Vocabulary

END_SHOWN = b"\n"
"""What the end of a document is shown as: with --document line it takes the place of the newline."""


@dataclass(frozen=True)
class ReadText:
    """A text of T symbols that are C characters. At the character level both are the same.

    ids: the symbols, [T].
    characters: the text; a byte that is not UTF-8 is a lone surrogate.
    ends: the place of the last symbol of each character, [C].
    """

    ids: Ids
    characters: str
    ends: Ids

    @classmethod
    def from_ids(cls, ids: Ids, vocabulary: Vocabulary) -> ReadText:
        """Return the text of these symbols, [T]."""
        symbols = [symbol or END_SHOWN for symbol in vocabulary.symbols]
        characters = b"".join(symbols[i] for i in ids.tolist()).decode("utf-8", "surrogateescape")
        if vocabulary.level == "char":
            return cls(ids, characters, np.arange(len(ids)))
        sizes = [len(character.encode("utf-8", "surrogateescape")) for character in characters]
        return cls(ids, characters, np.cumsum(sizes) - 1)

    def spread(self, values: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the value of the character of each symbol, [T], from those of the characters, [C]."""
        return np.repeat(values, np.diff(self.ends, prepend=-1))

    def sum_by_character(self, values: Array) -> Array:
        """Return the sum over the symbols of each character, [C], of values of the symbols, [T]."""
        if len(self.ends) == len(self.ids):
            return values
        return np.asarray(np.add.reduceat(values, np.concatenate([[0], self.ends[:-1] + 1])), np.float32)

    def select(self, trace: Trace) -> Trace:
        """Return the trace of this text with one place for each character, [C]: after its last symbol.

        The log-probability of a character is that of all of its symbols.
        """
        if len(self.ends) == len(self.ids):
            return trace
        series = {name: values[self.ends] for name, values in trace.series.items()}
        predictions = {
            direction: PredictionTrace(
                self.sum_by_character(each.log_probabilities),
                each.entropies[self.ends],
                each.likeliest[self.ends],
                each.probabilities[self.ends],
            )
            for direction, each in trace.predictions.items()
        }
        return replace(trace, ids=trace.ids[self.ends], series=series, predictions=predictions)
