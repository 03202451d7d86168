"""How well a model predicts a text from its beginning: every character scored exactly once, in context, in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlstm.data.split import Tokens
from charlstm.evaluation.metrics import Metrics, Scores
from charlstm.model.bidirectional import Model
from charlstm.model.head import Head
from charlstm.model.language_model import LanguageModel
from charlstm.model.stack import TensorStates

IdSequence = Tokens | NDArray[np.integer]
"""A text as ids, [length]."""

MAX_STREAMS = 64
MIN_STREAM = 4096
WARMUP = 512
"""Characters read unscored before each stream but the first; a trained network's state forgets more than that."""

MAX_LOGITS = 2**23


def evaluate(
    model: LanguageModel,
    ids: IdSequence,
    bos: int,
    size_bytes: int,
    stop: Callable[[], bool] = lambda: False,
) -> Metrics | None:
    """The figures of a text given as ids [length], read from the start symbol on, as a sample is written.

    None if `stop` said so before the end was reached. The model comes back in the mode it was in.
    """
    nats = 0.0
    for _, found, targets in predict_forward(model, ids, bos):
        nats += torch.nn.functional.cross_entropy(found, targets, reduction="none").cpu().double().sum().item()
        if stop():
            return None
    return Metrics(len(ids), size_bytes, nats)


def score(model: LanguageModel, ids: IdSequence, bos: int) -> Scores:
    """Log-probability and rank of every character of a text given as ids [length]."""
    scores = Scores.empty(len(ids))
    for places, found, targets in predict_forward(model, ids, bos):
        scores.set_at(places, score_targets(found, targets))
    return scores


def score_targets(logits: Tensor, targets: Tensor) -> Scores:
    """What the ids that stand where these logits [n, V] are were worth, [n]."""
    log_p = logits.log_softmax(-1)
    own = log_p.gather(1, targets[:, None])
    rank = 1 + (log_p > own).sum(1)
    return Scores(own[:, 0].cpu().numpy(), rank.cpu().numpy(), log_p.argmax(1).cpu().numpy())


@torch.inference_mode()
def predict_forward(
    model: LanguageModel, ids: IdSequence, bos: int
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Chunks of the text: places in it [n], the logits there [n, V] and the ids that stand there [n].

    The text is read in parallel streams, each warmed on what comes before it, so that every place comes once.
    """
    device = model.head.weight.device
    with evaluation_mode(model):
        stream_len, begins = cut_streams(len(ids))
        states = warm_states(model, ids, bos, begins)
        for t in range(0, stream_len, choose_chunk_steps(model, len(begins))):
            steps = np.arange(t, min(t + choose_chunk_steps(model, len(begins)), stream_len))
            places = begins + steps[:, None]  # [T, B]
            inside = (places < len(ids)) & (places < begins + stream_len)
            x = torch.from_numpy(preceding_ids(ids, np.minimum(places, len(ids) - 1), bos)).to(device)
            outputs, states = model.unroll(x, states)
            targets = torch.from_numpy(ids[places[inside]].astype(np.int64)).to(device)
            yield (
                places[inside],
                head_logits(model.head, outputs.head_input[torch.from_numpy(inside).to(device)]),
                targets,
            )


def head_logits(head: Head, read: Tensor) -> Tensor:
    """In float32, [n, V], of what a head reads [n, N]."""
    found: Tensor = head(head.project(read)).float()
    return found


def preceding_ids(ids: IdSequence, places: NDArray[np.int64], bos: int) -> NDArray[np.int64]:
    """What is read to predict the ids at these places: that before each one, and the start symbol before the first."""
    found = ids[np.maximum(places - 1, 0)].astype(np.int64)
    return np.where(places == 0, bos, found)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model without dropout and in full float32, which cuDNN's layers otherwise round to TF32; then as before."""
    training = model.training
    model.eval()
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        model.train(training)


def cut_streams(length: int) -> tuple[int, NDArray[np.int64]]:
    """Length of a stream and where each begins, for a text of this length."""
    count = min(max(length // MIN_STREAM, 1), MAX_STREAMS)
    stream_len = ceil(length / count)
    return stream_len, np.arange(0, length, stream_len)


def warm_states(model: LanguageModel, ids: IdSequence, bos: int, begins: NDArray[np.int64]) -> TensorStates:
    """The state at the beginning of each stream: fresh for the first, for the others that of the text before them."""
    states: TensorStates = model.initial_state(len(begins))
    if len(begins) == 1:
        return states
    places = np.maximum(begins + np.arange(-WARMUP, 0)[:, None], 0)
    _, states = model.unroll(torch.from_numpy(preceding_ids(ids, places, bos)).to(model.head.weight.device), states)
    for state in states:
        for part in state:
            part[0] = 0
    return states


def choose_chunk_steps(model: Model, count: int) -> int:
    """So many that the logits of a chunk stay small, whatever the vocabulary."""
    return int(min(max(MAX_LOGITS // (count * model.head.out_features), 1), 512))
