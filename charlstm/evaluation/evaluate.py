"""The figures of a text under a model of either kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from charlstm.evaluation.metrics import Metrics
from charlstm.evaluation.one_sided import IdSequence, evaluate
from charlstm.evaluation.two_sided import evaluate_both
from charlstm.model.bidirectional import Model
from charlstm.model.language_model import LanguageModel


class Figures(NamedTuple):
    """Those forwards and, of a bidirectional model, the others by their names."""

    evaluation: Metrics
    beside: Mapping[str, float] = {}

    def to_dict(self) -> dict[str, float]:
        return {**self.evaluation.to_dict(), **self.beside}


def figures(
    model: Model, ids: IdSequence, bos: int, size_bytes: int, stop: Callable[[], bool] = lambda: False
) -> Figures | None:
    """Of a text given as ids [length], read from the start symbol on. None if `stop` said so before the end."""
    if isinstance(model, LanguageModel):
        evaluation = evaluate(model, ids, bos, size_bytes, stop)
        return Figures(evaluation) if evaluation else None
    both = evaluate_both(model, ids, bos, size_bytes, stop)
    return Figures(both.forward, both.beside()) if both else None
