"""How well a bidirectional model predicts a text from its beginning, from its end, and from both sides at once.

The first two are likelihoods of the text, as any language model's. From both sides each character is predicted with
all the others known: what that adds up to is a pseudo-likelihood (Besag 1975), which no compressor could reach, since
no text can be written that way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlstm.evaluation.metrics import Metrics, Scores
from charlstm.evaluation.one_sided import (
    WARMUP,
    IdSequence,
    choose_chunk_steps,
    cut_streams,
    evaluation_mode,
    head_logits,
    preceding_ids,
    score_targets,
    warm_states,
)
from charlstm.model.bidirectional import BidirectionalModel
from charlstm.model.stack import TensorStates

Places = NDArray[np.int64]

CHUNKS_PER_SEGMENT = 64
"""Chunks whose states are held at once: two million characters of 64 streams, with a small vocabulary."""


class Views(NamedTuple):
    """What is said of the same characters, [n, V] or sums of it: with those before known, those after, or both."""

    forward: Tensor
    backward: Tensor
    both: Tensor


@dataclass(frozen=True)
class BothWays:
    """The figures of a text under a bidirectional model.

    `pseudo_nats` is minus the mean log-probability of a character given all the others; `restored` are the shares of
    characters that are the likeliest given those before, and given all the others.
    """

    forward: Metrics
    backward: Metrics
    pseudo_nats: float
    forward_restored: float
    both_restored: float

    def beside(self) -> dict[str, float]:
        """All but the forward figures, under the names that JSON output gives them."""
        return {
            "backward_loss_nats": self.backward.loss_nats,
            "backward_bpc": self.backward.bpc,
            "pseudo_likelihood_nats": self.pseudo_nats,
            "forward_restored": self.forward_restored,
            "both_sides_restored": self.both_restored,
        }


def evaluate_both(
    model: BidirectionalModel, ids: IdSequence, bos: int, size_bytes: int, stop: Callable[[], bool] = lambda: False
) -> BothWays | None:
    """The figures of a text given as ids [length], read from the start symbol on in both directions.

    None if `stop` said so before the end was reached.
    """
    nats, hits = np.zeros(3), np.zeros(3)
    for _, views, targets in predict_both_sides(model, ids, bos):
        for k, view in enumerate(views):
            nats[k] += torch.nn.functional.cross_entropy(view, targets, reduction="none").cpu().double().sum().item()
            hits[k] += (view.argmax(-1) == targets).sum().item()
        if stop():
            return None
    forward, backward = (Metrics(len(ids), size_bytes, float(sum_)) for sum_ in nats[:2])
    return BothWays(forward, backward, float(nats[2]) / len(ids), *(hits[[0, 2]] / len(ids)).tolist())


def score_both(model: BidirectionalModel, ids: IdSequence, bos: int) -> tuple[Scores, Scores]:
    """What every character of a text given as ids [length] is worth, given those before it and given all the others."""
    forward, both = Scores.empty(len(ids)), Scores.empty(len(ids))
    for places, views, targets in predict_both_sides(model, ids, bos):
        forward.set_at(places, score_targets(views.forward, targets))
        both.set_at(places, score_targets(views.both, targets))
    return forward, both


@torch.inference_mode()
def predict_both_sides(model: BidirectionalModel, ids: IdSequence, bos: int) -> Iterator[tuple[Places, Views, Tensor]]:
    """Chunks of the text: places in it [n], the three logits there [n, V] and the ids that stand there [n].

    It is read in streams as in `one_way`, each also warmed backwards on what comes after it. Backwards it is read
    twice: once for the state at the end of each chunk, and then, chunk by chunk, beside the forward model.
    """
    device = model.head.weight.device

    def tensor(array: NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(device)

    with evaluation_mode(model):
        stream_len, begins = cut_streams(len(ids))
        chunks = list(
            pairwise(chunk_edges(stream_len, len(ids) - int(begins[-1]), choose_chunk_steps(model, len(begins))))
        )
        beyond = backward_states(model, ids, bos, begins, chunks)
        states = warm_states(model.forward_lm, ids, bos, begins)
        for (first, last), state in zip(chunks, beyond, strict=True):
            places = begins + np.arange(first, last)[:, None]  # [T, B]
            inside = places < len(ids)
            within = np.minimum(places, len(ids) - 1)
            forward, states = model.forward_lm.unroll(tensor(preceding_ids(ids, within, bos)), states)
            backward, _ = model.backward_lm.unroll(tensor(following_ids(ids, within[::-1], bos)), state)
            f, b = (
                read[torch.from_numpy(inside).to(device)] for read in (forward.head_input, backward.head_input.flip(0))
            )
            views = Views(
                head_logits(model.forward_lm.head, f),
                head_logits(model.backward_lm.head, b),
                head_logits(model.joint, model.join(f, b)),
            )
            yield places[inside], views, tensor(ids[places[inside]])


def chunk_edges(stream_len: int, last_len: int, step: int) -> list[int]:
    """Where the chunks of streams meet. The last stream ends at one of them, as it may be shorter than the others."""
    return sorted({*range(0, stream_len, step), last_len, stream_len})


def backward_states(
    model: BidirectionalModel, ids: IdSequence, bos: int, begins: Places, chunks: list[tuple[int, int]]
) -> Iterator[TensorStates]:
    """The backward model's state at the end of each chunk of the streams, which is where it begins to read it.

    They are found a segment at a time, so that the states that are held do not grow with the text.
    """
    for at in range(0, len(chunks), CHUNKS_PER_SEGMENT):
        yield from backward_states_of_segment(model, ids, bos, begins, chunks[at : at + CHUNKS_PER_SEGMENT])


def backward_states_of_segment(
    model: BidirectionalModel, ids: IdSequence, bos: int, begins: Places, chunks: list[tuple[int, int]]
) -> list[TensorStates]:
    """The same for chunks next to each other; it begins with what comes after them, unscored."""
    device, end = model.head.weight.device, len(ids) - int(begins[-1])
    stop = chunks[-1][1]
    further = pairwise(sorted({stop, min(max(end, stop), stop + WARMUP), stop + WARMUP}))

    def read(first: int, last: int, states: TensorStates) -> TensorStates:
        places = np.minimum(begins + np.arange(last - 1, first - 1, -1)[:, None], len(ids) - 1)
        return model.backward_lm.unroll(torch.from_numpy(following_ids(ids, places, bos)).to(device), states)[1]

    states: TensorStates = model.backward_lm.initial_state(len(begins))
    found = []
    for first, last in reversed([*chunks, *further]):
        if last == end:  # of the last stream, nothing has been read yet
            states = [tuple(torch.cat([part[:-1], torch.zeros_like(part[-1:])]) for part in state) for state in states]
        found.append(states)
        states = read(first, last, states)
    return found[::-1][: len(chunks)]


def following_ids(ids: IdSequence, places: Places, bos: int) -> Places:
    """What is read backwards to predict the ids at these places: that after each one, and the start symbol after the
    last."""
    found = ids[np.minimum(places + 1, len(ids) - 1)].astype(np.int64)
    return np.where(places == len(ids) - 1, bos, found)
