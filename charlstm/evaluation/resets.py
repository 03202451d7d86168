"""The loss of a model by how many characters it has read since its state was reset."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from charlstm.evaluation.forward import compute_logits, evaluation_mode
from charlstm.evaluation.streams import MAX_CHUNK_LOGITS, IdSequence
from charlstm.model.language_model import LanguageModel

PERIOD, OFFSETS = 500, 10
"""Characters between resets, and in how many places the first reset is, evenly spread."""

DISTANCES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)
"""Upper bounds of the ranges of distances."""


class DistanceLoss(NamedTuple):
    """The loss of the characters that are `first` to `last` characters after a reset, in nats per character."""

    first: int
    last: int
    characters: int
    loss_nats: float


@torch.inference_mode()
def loss_since_reset(model: LanguageModel, ids: IdSequence, bos: int) -> list[DistanceLoss]:
    """Return the loss by distance from a reset: 1 for the first character after it.

    A text, ids [length], is read in pieces of 500 characters, each after BOS from the initial state, ten times from
    other places. Of a text that is shorter than a piece, there is none.
    """
    sums = np.zeros(PERIOD)
    offsets = range(0, PERIOD, PERIOD // OFFSETS)
    starts = np.array([start for offset in offsets for start in range(offset, len(ids) - PERIOD + 1, PERIOD)], np.int64)
    rows = max(MAX_CHUNK_LOGITS // (PERIOD * model.head.out_features), 1)
    with evaluation_mode(model):
        for first in range(0, len(starts), rows):
            pieces = ids[starts[first : first + rows] + np.arange(PERIOD)[:, None]]
            sums += piece_losses(model, pieces.astype(np.int64), bos).sum(1)
    if not len(starts):
        return []
    bounds = pairwise((0, *DISTANCES))
    means = [(low + 1, high, float(sums[low:high].mean()) / len(starts)) for low, high in bounds]
    return [DistanceLoss(low, high, (high - low + 1) * len(starts), mean) for low, high, mean in means]


def piece_losses(model: LanguageModel, pieces: NDArray[np.int64], bos: int) -> NDArray[np.float64]:
    """Return the loss of each character of pieces of a text, [T, B], each read after BOS, in nats."""
    device = model.head.weight.device
    targets = torch.from_numpy(pieces).to(device)
    x = torch.cat([torch.full_like(targets[:1], bos), targets[:-1]])
    outputs, _ = model.unroll(x, model.initial_state(pieces.shape[1]))
    logits = compute_logits(model.head, outputs.head_input.flatten(0, 1))
    losses = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")
    by_character: NDArray[np.float64] = losses.view(targets.shape).double().cpu().numpy()
    return by_character
