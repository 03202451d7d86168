"""Predict a text that is read in one stream: by one model or the mean of two, which may learn from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from charlstm.config import AdaptationConfig
from charlstm.evaluation.dynamic import predict_dynamically
from charlstm.evaluation.forward import ONE_STREAM_THREADS, average_distributions, predict_forward
from charlstm.evaluation.streams import IdSequence, Streams
from charlstm.model.device import use_threads
from charlstm.model.language_model import LanguageModel


def predict_in_order(
    models: Sequence[LanguageModel], ids: IdSequence, bos: int, adaptation: AdaptationConfig | None = None
) -> Iterator[NDArray[np.float32]]:
    """Yield the log-probabilities of every symbol at each place of a text, [n, V], in windows.

    models: one, or two whose distributions are averaged.
    ids: the text, [length], which is read after BOS.
    adaptation: if given, each model learns from the text as it reads it, until the last window.
    """
    readings = [
        predict_dynamically(model, ids, bos, adaptation) if adaptation else predict_unchanged(model, ids, bos)
        for model in models
    ]
    if len(readings) == 1:
        return readings[0]
    return (average_distributions(*map(torch.from_numpy, pair)).numpy() for pair in zip(*readings, strict=True))


def predict_unchanged(model: LanguageModel, ids: IdSequence, bos: int) -> Iterator[NDArray[np.float32]]:
    """Yield the log-probabilities of every symbol at each place of a text, [n, V], without learning from it."""
    windows = (
        chunk.forward.log_softmax(-1).cpu().numpy()
        for chunk in predict_forward(model, ids, bos, Streams.cut(len(ids), 1))
    )
    while True:
        with use_threads(ONE_STREAM_THREADS):  # not while the caller computes
            window = next(windows, None)
        if window is None:
            return
        yield window
