"""How well a model predicts a text from its beginning: every character scored exactly once, in context, in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlstm.data.tokens import Tokens
from charlstm.evaluation.figures import Evaluation, Scores
from charlstm.model.bidirectional import Model
from charlstm.model.head import Head
from charlstm.model.language_model import LanguageModel
from charlstm.model.stack import States

Text = Tokens | NDArray[np.integer]
"""A text as ids, [length]."""

MOST_STREAMS = 64
SHORTEST_STREAM = 4096
WARMUP = 512
"""Characters read unscored before each stream but the first; a trained network's state forgets more than that."""

LOGITS_AT_ONCE = 2**23


def evaluate(
    model: LanguageModel,
    ids: Text,
    start: int,
    size_bytes: int,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """The figures of a text given as ids [length], read from the start symbol on, as a sample is written.

    None if `stop` said so before the end was reached. The model comes back in the mode it was in.
    """
    nats = 0.0
    for _, found, targets in predictions(model, ids, start):
        nats += torch.nn.functional.cross_entropy(found, targets, reduction="none").cpu().double().sum().item()
        if stop():
            return None
    return Evaluation(len(ids), size_bytes, nats)


def score(model: LanguageModel, ids: Text, start: int) -> Scores:
    """Log-probability and rank of every character of a text given as ids [length]."""
    scores = Scores.of(len(ids))
    for places, found, targets in predictions(model, ids, start):
        scores.put(places, scores_of(found, targets))
    return scores


def scores_of(logits: Tensor, targets: Tensor) -> Scores:
    """What the ids that stand where these logits [n, V] are were worth, [n]."""
    log_p = logits.log_softmax(-1)
    own = log_p.gather(1, targets[:, None])
    rank = 1 + (log_p > own).sum(1)
    return Scores(own[:, 0].cpu().numpy(), rank.cpu().numpy(), log_p.argmax(1).cpu().numpy())


@torch.inference_mode()
def predictions(model: LanguageModel, ids: Text, start: int) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Chunks of the text: places in it [n], the logits there [n, V] and the ids that stand there [n].

    The text is read in parallel streams, each warmed on what comes before it, so that every place comes once.
    """
    device = model.head.weight.device
    with evaluating(model):
        stream_len, begins = streams(len(ids))
        states = warmed(model, ids, start, begins)
        for t in range(0, stream_len, steps_at_once(model, len(begins))):
            steps = np.arange(t, min(t + steps_at_once(model, len(begins)), stream_len))
            places = begins + steps[:, None]  # [T, B]
            inside = (places < len(ids)) & (places < begins + stream_len)
            x = torch.from_numpy(before(ids, np.minimum(places, len(ids) - 1), start)).to(device)
            outputs, states = model.read(x, states)
            targets = torch.from_numpy(ids[places[inside]].astype(np.int64)).to(device)
            yield places[inside], logits(model.head, outputs.dropped[torch.from_numpy(inside).to(device)]), targets


def logits(head: Head, read: Tensor) -> Tensor:
    """In float32, [n, V], of what a head reads [n, N]."""
    found: Tensor = head(head.project(read)).float()
    return found


def before(ids: Text, places: NDArray[np.int64], start: int) -> NDArray[np.int64]:
    """What is read to predict the ids at these places: that before each one, and the start symbol before the first."""
    found = ids[np.maximum(places - 1, 0)].astype(np.int64)
    return np.where(places == 0, start, found)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout and in full float32, which cuDNN's layers otherwise round to TF32; then as before."""
    training = model.training
    model.eval()
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        model.train(training)


def streams(length: int) -> tuple[int, NDArray[np.int64]]:
    """Length of a stream and where each begins, for a text of this length."""
    count = min(max(length // SHORTEST_STREAM, 1), MOST_STREAMS)
    stream_len = ceil(length / count)
    return stream_len, np.arange(0, length, stream_len)


def warmed(model: LanguageModel, ids: Text, start: int, begins: NDArray[np.int64]) -> States:
    """The state at the beginning of each stream: fresh for the first, for the others that of the text before them."""
    states: States = model.start(len(begins))
    if len(begins) == 1:
        return states
    places = np.maximum(begins + np.arange(-WARMUP, 0)[:, None], 0)
    _, states = model.read(torch.from_numpy(before(ids, places, start)).to(model.head.weight.device), states)
    for state in states:
        for part in state:
            part[0] = 0
    return states


def steps_at_once(model: Model, count: int) -> int:
    """So many that the logits of a chunk stay small, whatever the vocabulary."""
    return int(min(max(LOGITS_AT_ONCE // (count * model.head.out_features), 1), 512))
