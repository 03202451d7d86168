"""Predict each character of a text from those before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import log
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from charlstm.evaluation.streams import WARMUP, IdSequence, Places, Streams, preceding_ids
from charlstm.model.head import Head
from charlstm.model.language_model import LanguageModel
from charlstm.model.stack import TensorStates
from charlstm.workers import CAN_FORK

ONE_STREAM_THREADS = 1 if CAN_FORK else 0
"""Threads of torch for a text in one stream, 0 for its default. One stream has too little work for two: they are a
third faster on an idle machine, and ten times slower if another program takes the core of one."""


class Predictions(NamedTuple):
    """The logits of some characters of a text, [n, V] each: given those before, those after, or all the others."""

    places: Places  # [n], where in the text
    targets: Tensor  # [n], the ids that are there
    forward: Tensor
    backward: Tensor | None = None
    both_sides: Tensor | None = None

    @property
    def views(self) -> list[Tensor]:
        """The logits that this model has, in the order above."""
        return [logits for logits in (self.forward, self.backward, self.both_sides) if logits is not None]


@torch.inference_mode()
def predict_forward(model: LanguageModel, ids: IdSequence, bos: int, streams: Streams) -> Iterator[Predictions]:
    """Predict every character of these streams of a text, ids [length], once, in chunks. The text is read after BOS.

    The model keeps its mode.
    """
    device = model.head.weight.device
    with evaluation_mode(model):
        states = warm_up(model, ids, bos, streams)
        for first, last in streams.chunks(streams.chunk_steps(model.head.out_features)):
            places = streams.places(first, last)  # [T, B]
            inside = places < len(ids)
            x = torch.from_numpy(preceding_ids(ids, np.minimum(places, len(ids) - 1), bos)).to(device)
            outputs, states = model.unroll(x, states)
            targets = torch.from_numpy(ids[places[inside]].astype(np.int64)).to(device)
            head_inputs = outputs.head_input[torch.from_numpy(inside).to(device)]
            yield Predictions(places[inside], targets, compute_logits(model.head, head_inputs))


def warm_up(model: LanguageModel, ids: IdSequence, bos: int, streams: Streams) -> TensorStates:
    """Return the state at the start of each stream, once it has read BOS and its warm-up.

    That of a stream at the start of the text is the initial state. Without BOS in front, a network may never leave the
    state into which an unusual first character brings it: it was trained on few texts that begin with that character.
    """
    states: TensorStates = model.initial_state(len(streams.starts))
    at_start = int(streams.starts[0]) == 0
    if len(streams.starts) == 1 and at_start:
        return states
    places = np.maximum(streams.places(-WARMUP, 0), 0)
    x = preceding_ids(ids, places, bos)
    x[0] = bos
    _, states = model.unroll(torch.from_numpy(x).to(model.head.weight.device), states)
    if at_start:
        for state in states:
            for part in state:
                part[0] = 0
    return states


def compute_logits(head: Head, head_inputs: Tensor) -> Tensor:
    """Return float32 logits [n, V] from what a head reads, [n, R]."""
    logits: Tensor = head(head.project(head_inputs)).float()
    return logits


def average_distributions(first: Tensor, second: Tensor) -> Tensor:
    """Return the log-probabilities of the mean of two distributions, given theirs, of any shape."""
    return torch.logaddexp(first, second) - log(2)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Turn dropout off, and TF32 in cuDNN's layers, which would round float32. Afterwards the mode is as before."""
    training = model.training
    model.eval()
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        model.train(training)
