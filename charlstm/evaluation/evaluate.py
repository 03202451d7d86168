"""Evaluate a model on a text: its metrics, or the scores of each character. For models of either kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from charlstm.evaluation.forward import Predictions, predict_forward
from charlstm.evaluation.metrics import Metrics, Scores, TextScores
from charlstm.evaluation.streams import IdSequence
from charlstm.evaluation.two_sided import predict_both_sides
from charlstm.model.bidirectional import Model
from charlstm.model.language_model import LanguageModel


def evaluate(
    model: Model, ids: IdSequence, bos: int, size_bytes: int, stop: Callable[[], bool] = lambda: False
) -> Metrics | None:
    """Return the metrics of a text, ids [length], that is read after BOS, in float32.

    `size_bytes` is the size of the text in UTF-8. Returns None if `stop()` is true before the end is reached. The
    model keeps its weights and its mode.
    """
    nats, correct = np.zeros(3), np.zeros(3)
    for chunk in predict(model, ids, bos):
        for k, logits in enumerate(chunk.views):
            losses = torch.nn.functional.cross_entropy(logits, chunk.targets, reduction="none")
            nats[k] += losses.cpu().double().sum().item()
            if chunk.both_sides is not None:
                correct[k] += (logits.argmax(-1) == chunk.targets).sum().item()
        if stop():
            return None
    forward, backward, both_sides = nats.tolist()
    if isinstance(model, LanguageModel):
        return Metrics(len(ids), size_bytes, forward)
    accuracy = (correct / len(ids)).tolist()
    return Metrics(len(ids), size_bytes, forward, backward, both_sides / len(ids), accuracy[0], accuracy[2])


def score_characters(model: Model, ids: IdSequence, bos: int) -> TextScores:
    """Return the log-probability and rank of every character of a text, ids [length], that is read after BOS."""
    forward = Scores.empty(len(ids))
    both_sides = None if isinstance(model, LanguageModel) else Scores.empty(len(ids))
    for chunk in predict(model, ids, bos):
        forward.set_at(chunk.places, score_targets(chunk.forward, chunk.targets))
        if both_sides is not None and chunk.both_sides is not None:
            both_sides.set_at(chunk.places, score_targets(chunk.both_sides, chunk.targets))
    return TextScores(forward, both_sides)


def predict(model: Model, ids: IdSequence, bos: int) -> Iterator[Predictions]:
    """Predict every character of a text once, in chunks."""
    if isinstance(model, LanguageModel):
        return predict_forward(model, ids, bos)
    return predict_both_sides(model, ids, bos)


def score_targets(logits: Tensor, targets: Tensor) -> Scores:
    """Return the scores of the symbols `targets` [n] under logits [n, V]."""
    log_p = logits.log_softmax(-1)
    own = log_p.gather(1, targets[:, None])
    rank = 1 + (log_p > own).sum(1)
    return Scores(own[:, 0].cpu().numpy(), rank.cpu().numpy(), log_p.argmax(1).cpu().numpy())
