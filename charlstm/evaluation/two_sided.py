"""Predict each character of a text with a bidirectional model: from those before, from those after, from all others.

The first two give likelihoods of the text, as any language model does. From both sides each character is predicted
with all the others known. Their log-probabilities add up to a pseudo-likelihood (Besag 1975), which is no likelihood:
no code for the text could reach it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlstm.evaluation.forward import Predictions, compute_logits, evaluation_mode, warm_up
from charlstm.evaluation.streams import WARMUP, IdSequence, Streams, following_ids, preceding_ids
from charlstm.model.bidirectional import BidirectionalModel
from charlstm.model.stack import TensorStates

CHUNKS_PER_SEGMENT = 64
"""Chunks whose backward states are in memory at once: two million characters of 64 streams with a small vocabulary."""

Chunk = tuple[int, int]
"""Steps of the streams, from the first up to but without the last."""


@torch.inference_mode()
def predict_both_sides(model: BidirectionalModel, ids: IdSequence, bos: int, streams: Streams) -> Iterator[Predictions]:
    """Predict every character of these streams of a text, ids [length], once, in chunks.

    The streams are warmed up as by `predict_forward`. Each stream also reads backward, warmed up by what comes
    after it. The backward model reads the text twice: once to find its state at the end of each chunk, and again, chunk
    by chunk, along with the forward model.
    """
    device = model.head.weight.device

    def to_tensor(array: NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(device)

    with evaluation_mode(model):
        chunks = streams.chunks_to_each_end(streams.chunk_steps(model.head.out_features))
        states = warm_up(model.forward_lm, ids, bos, streams)
        for chunk, backward_state in zip(chunks, backward_states(model, ids, bos, streams, chunks), strict=True):
            places = streams.places(*chunk)  # [T, B]
            inside = places < len(ids)
            within = np.minimum(places, len(ids) - 1)
            forward, states = model.forward_lm.unroll(to_tensor(preceding_ids(ids, within, bos)), states)
            backward, _ = model.backward_lm.unroll(to_tensor(following_ids(ids, within[::-1], bos)), backward_state)
            mask = torch.from_numpy(inside).to(device)
            f, b = forward.head_input[mask], backward.head_input.flip(0)[mask]
            yield Predictions(
                places[inside],
                to_tensor(ids[places[inside]]),
                compute_logits(model.forward_lm.head, f),
                compute_logits(model.backward_lm.head, b),
                compute_logits(model.joint, model.join(f, b)),
            )


def backward_states(
    model: BidirectionalModel, ids: IdSequence, bos: int, streams: Streams, chunks: list[Chunk]
) -> Iterator[TensorStates]:
    """Compute the backward model's state at the end of each chunk, where it starts to read the chunk.

    It works on a segment of chunks at a time, so that memory does not grow with the text.
    """
    for k in range(0, len(chunks), CHUNKS_PER_SEGMENT):
        yield from backward_states_of_segment(model, ids, bos, streams, chunks[k : k + CHUNKS_PER_SEGMENT])


def backward_states_of_segment(
    model: BidirectionalModel, ids: IdSequence, bos: int, streams: Streams, chunks: list[Chunk]
) -> list[TensorStates]:
    """Compute these states for adjacent chunks. It first reads what comes after them, the warm-up.

    The warm-up needs no BOS in front: in training the backward model starts to read at the end of every window.
    """
    device, last_end, segment_end = model.head.weight.device, streams.last_steps, chunks[-1][1]
    ends_text = int(streams.starts[-1]) + streams.steps >= streams.length
    warmup_end = segment_end + WARMUP
    warmup = pairwise(sorted({segment_end, min(max(last_end, segment_end), warmup_end), warmup_end}))
    states: TensorStates = model.backward_lm.initial_state(len(streams.starts))
    found = []
    for first, last in reversed([*chunks, *warmup]):
        if last == last_end and ends_text:  # the last stream starts here: it has read only places outside the text
            states = [tuple(torch.cat([part[:-1], torch.zeros_like(part[-1:])]) for part in state) for state in states]
        found.append(states)
        places = np.minimum(streams.places(first, last)[::-1], len(ids) - 1)
        x = torch.from_numpy(following_ids(ids, places, bos)).to(device)
        states = model.backward_lm.unroll(x, states)[1]
    return found[::-1][: len(chunks)]
