"""Evaluate a model on a text: its metrics, or the scores of each character. For models of either kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from charlstm.evaluation.forward import Predictions, average_distributions, predict_forward
from charlstm.evaluation.metrics import Metrics, Scores, TextScores
from charlstm.evaluation.streams import IdSequence, Places, Streams
from charlstm.evaluation.two_sided import predict_both_sides
from charlstm.model.bidirectional import Model
from charlstm.model.device import use_threads
from charlstm.model.language_model import LanguageModel
from charlstm.model.ranks import Ranks
from charlstm.runtime import count_cores
from charlstm.workers import CAN_FORK, compute_in_parallel, count_processes

Partial = TypeVar("Partial")


class StoppedError(Exception):
    """`stop()` was true before the end of the text."""


def evaluate(
    model: Model,
    ids: IdSequence,
    bos: int,
    size_bytes: int,
    stop: Callable[[], bool] = lambda: False,
    cores: int | None = None,
    limit: int = 0,
    ranks: Ranks | None = None,
) -> Metrics | None:
    """Return the metrics of a text, ids [length], that is read after BOS, in float32.

    `cores` is the number of cores to use; None is all. `limit` is the number of characters to read, in pieces from all
    over the text; 0 is all. `size_bytes` is the size of these pieces in UTF-8. Each of the `ranks` reads some of the
    streams, and gets the metrics of all. Returns None if `stop()` is true before the end is reached. The model keeps
    its weights and its mode.
    """
    streams, ranks = Streams.for_evaluation(len(ids), limit), ranks or Ranks()

    def sum_losses(streams: Streams, is_first: bool) -> NDArray[np.float64]:
        """Return the losses in nats and the correct predictions, for each view of the model: [2, 3]."""
        sums = np.zeros((2, 3))
        for chunk in predict(model, ids, bos, streams):
            for k, logits in enumerate(chunk.views):
                losses = cross_entropy(logits, chunk.targets, reduction="none")
                sums[0, k] += losses.cpu().double().sum().item()
                if chunk.both_sides is not None:
                    sums[1, k] += (logits.argmax(-1) == chunk.targets).sum().item()
            if is_first and stop():
                raise StoppedError
        return sums

    sums, stopped = np.zeros((2, 3)), False
    try:
        own = streams.split(ranks.size)[ranks.rank]
        if len(own.starts):
            sums = np.sum(divide_streams(sum_losses, model, own, cores), 0)
    except StoppedError:
        stopped = True
    *totals, stops = ranks.sum_numbers([*sums.ravel().tolist(), stopped])
    if stops:
        return None
    nats, correct = np.reshape(totals, (2, 3))
    forward, backward, both_sides = nats.tolist()
    read = streams.characters
    if isinstance(model, LanguageModel):
        return Metrics(read, size_bytes, forward)
    accuracy = (correct / read).tolist()
    return Metrics(read, size_bytes, forward, backward, both_sides / read, accuracy[0], accuracy[2])


def evaluate_average(
    models: tuple[LanguageModel, LanguageModel], ids: IdSequence, bos: int, size_bytes: int
) -> Metrics:
    """Return the metrics of a text, ids [length], under the mean of the distributions of two models, as `evaluate`."""

    def sum_losses(streams: Streams, is_first: bool) -> float:
        nats = 0.0
        for first, second in zip(*(predict_forward(model, ids, bos, streams) for model in models), strict=True):
            own = [-cross_entropy(chunk.forward, chunk.targets, reduction="none") for chunk in (first, second)]
            nats -= average_distributions(*own).double().sum().item()
        return nats

    return Metrics(len(ids), size_bytes, sum(divide_streams(sum_losses, models[0], Streams.for_evaluation(len(ids)))))


def score_characters(model: Model, ids: IdSequence, bos: int) -> TextScores:
    """Return the log-probability and rank of every character of a text, ids [length], that is read after BOS."""

    def score(streams: Streams, is_first: bool) -> list[tuple[Places, Scores, Scores | None]]:
        return [
            (
                chunk.places,
                score_targets(chunk.forward, chunk.targets),
                None if chunk.both_sides is None else score_targets(chunk.both_sides, chunk.targets),
            )
            for chunk in predict(model, ids, bos, streams)
        ]

    forward = Scores.empty(len(ids))
    both_sides = None if isinstance(model, LanguageModel) else Scores.empty(len(ids))
    streams = Streams.for_evaluation(len(ids))
    for places, forward_scores, joint_scores in chain.from_iterable(divide_streams(score, model, streams)):
        forward.set_at(places, forward_scores)
        if both_sides is not None and joint_scores is not None:
            both_sides.set_at(places, joint_scores)
    return TextScores(forward, both_sides)


def divide_streams(
    function: Callable[[Streams, bool], Partial], model: Model, streams: Streams, cores: int | None = None
) -> list[Partial]:
    """Apply a function to all streams of a text, divided among processes where the model is on the CPU.

    It is called with some of the streams and whether they are the first, which this process reads.
    """
    on_cpu = model.head.weight.device.type == "cpu"
    processes = count_processes(cores or count_cores(), len(streams.starts)) if on_cpu else 1
    tasks = [partial(function, part, k == 0) for k, part in enumerate(streams.split(processes))]
    with use_threads(1 if CAN_FORK else 0):
        return compute_in_parallel(tasks)


def predict(model: Model, ids: IdSequence, bos: int, streams: Streams) -> Iterator[Predictions]:
    """Predict every character of these streams of a text once, in chunks."""
    if isinstance(model, LanguageModel):
        return predict_forward(model, ids, bos, streams)
    return predict_both_sides(model, ids, bos, streams)


def score_targets(logits: Tensor, targets: Tensor) -> Scores:
    """Return the scores of the symbols `targets` [n] under logits [n, V]."""
    log_p = logits.log_softmax(-1)
    own = log_p.gather(1, targets[:, None])
    rank = 1 + (log_p > own).sum(1)
    return Scores(own[:, 0].cpu().numpy(), rank.cpu().numpy(), log_p.argmax(1).cpu().numpy())
