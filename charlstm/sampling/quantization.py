"""What a model loses when its weights are rounded to 8-bit integers."""

from __future__ import annotations

import numpy as np

from charlstm.config import Direction
from charlstm.data.split import Tokens
from charlstm.sampling.filters import log_softmax
from charlstm.sampling.network import Network
from charlstm.sampling.reading_order import ReadingOrder
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Ids

STREAMS = 65
"""Places of the text that are read at once: as many as multiply floats in one product."""

WARMUP_SYMBOLS = 32
"""Symbols read at each place before the loss counts."""

SCORED_SYMBOLS = 64
"""Symbols at each place whose loss counts: the difference then has a standard error of about 0.0002 nats."""


def measure_quantization(file: ModelFile, tokens: Tokens) -> float | None:
    """Return the loss with 8-bit weights minus that with float32, in nats per symbol; None if the text is too short.

    It is measured at places spread over the text. Of a bidirectional model, it is the larger one of both directions.
    """
    places = choose_places(tokens)
    if places is None:
        return None
    directions: tuple[Direction, ...] = ("forward", "backward") if file.config.model.bidirectional else ("forward",)
    return max(compare_precisions(file, direction, places) for direction in directions)


def choose_places(tokens: Tokens) -> Ids | None:
    """Return symbols at places spread over a text, [T, STREAMS]; None if the text is too short."""
    length = WARMUP_SYMBOLS + SCORED_SYMBOLS
    if len(tokens) < length:
        return None
    starts = np.linspace(0, len(tokens) - length, STREAMS).astype(np.int64).tolist()
    return np.stack([tokens.span(start, start + length) for start in starts], 1).astype(np.int64)


def compare_precisions(file: ModelFile, direction: Direction, places: Ids) -> float:
    """Return the difference for one direction. `places` [T, STREAMS] are in text order."""
    half, end_of_document = file.select_direction(direction), file.vocabulary.end_of_document
    read = ReadingOrder(direction).convert(places)
    losses = [
        mean_loss(Network(half.config.model, half.weights, end_of_document, quantized=quantized), read)
        for quantized in (True, False)
    ]
    return losses[0] - losses[1]


def mean_loss(network: Network, ids: Ids) -> float:
    """Return the mean loss of the symbols after the warm-up, in nats, from a zero state. `ids` is [T, N]."""
    states, losses = network.initial_state(ids.shape[1]), []
    for t in range(len(ids) - 1):
        logits, states = network.step(ids[t], states)
        if t + 1 >= WARMUP_SYMBOLS:
            losses.append(-np.take_along_axis(log_softmax(logits), ids[t + 1][:, None], 1))
    return float(np.mean(losses, dtype=np.float64))
