"""The whole model: characters in, logits of the next one out."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from charlstm.config import ModelConfig, RegularizationConfig
from charlstm.model.head import Head
from charlstm.model.kernels.cross_entropy import linear_cross_entropy
from charlstm.model.kernels.resets import NOWHERE, Resets
from charlstm.model.layers import Engine
from charlstm.model.stack import Stack, TensorStates
from charlstm.model.weights import ExportableModule


class StackOutputs(NamedTuple):
    """What goes up from the top layer [T, B, H], what the head reads, after dropout, and where a document goes on from
    the step before [T, B, 1], if not everywhere."""

    top: Tensor
    head_input: Tensor
    keep: Tensor | None = None


class Losses(NamedTuple):
    """Mean over characters, in nats: the cross-entropy, and what is to be minimised, which has label smoothing."""

    nats: Tensor
    smoothed: Tensor


class Objective(NamedTuple):
    """One of the losses that a model is trained on, and what the penalties of training see of the stack behind it."""

    losses: Losses
    outputs: StackOutputs | None


class LanguageModel(ExportableModule):
    """Embedding, stack, head. `logits, states = model(ids, states)` with ids [T, B] and logits [T, B, V].

    Where the id read is the `boundary`, the state is fresh before it, whatever was read: an item begins, and the
    boundary's own vector is what it begins with. `embedding` is one to have in common with another model. Raises
    ValueError for a boundary with torch's operators.
    """

    look_ahead = 0
    """Characters beyond a window and its targets that training reads."""

    def __init__(
        self,
        config: ModelConfig,
        size: int,
        engine: Engine = "kernel",
        regularization: RegularizationConfig = RegularizationConfig(),
        end_of_document: int | None = None,
        embedding: nn.Embedding | None = None,
    ) -> None:
        super().__init__()
        if end_of_document is not None and engine == "torch":
            raise ValueError("torch's operators cannot start afresh within a sequence")
        self.config = replace(config, bidirectional=False)
        self.end_of_document = end_of_document
        self.embedding = embedding or nn.Embedding(size, config.embedding)
        self.stack = Stack(config, engine, regularization)
        self.label_smoothing = regularization.label_smoothing
        self.head_layers = config.layers if config.head == "all" else 1
        self.head = Head(config.hidden * self.head_layers, self.embedding, config.head == "tied")

    def forward(self, ids: Tensor, states: TensorStates) -> tuple[Tensor, TensorStates]:
        outputs, states = self.unroll(ids, states)
        return self.head(self.head.project(outputs.head_input)), states

    def compute_objectives(self, window: Tensor, states: TensorStates) -> tuple[list[Objective], TensorStates]:
        """What to minimise over a window [T+1, B]: the loss of each character but the first, given those before it."""
        losses, states, outputs = self.compute_loss(window[:-1], window[1:], states)
        return [Objective(losses, outputs)], states

    def compute_loss(
        self, ids: Tensor, targets: Tensor, states: TensorStates
    ) -> tuple[Losses, TensorStates, StackOutputs]:
        """How well `targets` [T, B] are predicted, without all the logits; and what the penalties of training see."""
        outputs, states = self.unroll(ids, states)
        return compute_head_losses(self.head, outputs.head_input, targets, self.label_smoothing), states, outputs

    def unroll(self, ids: Tensor, states: TensorStates) -> tuple[StackOutputs, TensorStates]:
        """What there is to predict from after each of the ids [T, B]."""
        resets = NOWHERE if self.end_of_document is None else Resets(ids != self.end_of_document)
        outputs, states = self.stack(ids, self.embedding.weight, states, resets)
        dropped = torch.cat([self.stack.apply_dropout(y) for y in outputs[-self.head_layers :]], -1)
        return StackOutputs(outputs[-1], dropped, resets.keep), states

    def initial_state(self, batch: int) -> TensorStates:
        """The state of B texts of which nothing has been read."""
        return self.stack.initial_state(batch)


def compute_head_losses(head: Head, head_input: Tensor, targets: Tensor, label_smoothing: float) -> Losses:
    """How well a head predicts `targets` [T, B] from what it reads [T, B, N]."""
    x, y = head.project(head_input).flatten(0, 1), targets.flatten()
    return Losses(*linear_cross_entropy(x, head.weight, head.bias, y, label_smoothing))


def detach_states(states: TensorStates) -> TensorStates:
    """The same state in float32, cut off from the graph that led to it: where truncated BPTT truncates."""
    return [tuple(part.detach().float() for part in state) for state in states]
