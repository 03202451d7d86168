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
from charlstm.model.savable import SavableModule
from charlstm.model.stack import Stack, States


class Outputs(NamedTuple):
    """What goes up from the top layer [T, B, H], what the head reads, after dropout, and where a document goes on from
    the step before [T, B, 1], if not everywhere."""

    plain: Tensor
    dropped: Tensor
    keep: Tensor | None = None


class Losses(NamedTuple):
    """Mean over characters, in nats: the cross-entropy, and what is to be minimised, which has label smoothing."""

    nats: Tensor
    smoothed: Tensor


class Objective(NamedTuple):
    """One of the losses that a model is trained on, and what the penalties of training see of the stack behind it."""

    losses: Losses
    outputs: Outputs | None


class LanguageModel(SavableModule):
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
        self.heads_read = config.layers if config.head == "all" else 1
        self.head = Head(config.hidden * self.heads_read, self.embedding, config.head == "tied")

    def forward(self, ids: Tensor, states: States) -> tuple[Tensor, States]:
        outputs, states = self.unroll(ids, states)
        return self.head(self.head.project(outputs.dropped)), states

    def compute_objectives(self, window: Tensor, states: States) -> tuple[list[Objective], States]:
        """What to minimise over a window [T+1, B]: the loss of each character but the first, given those before it."""
        losses, states, outputs = self.compute_loss(window[:-1], window[1:], states)
        return [Objective(losses, outputs)], states

    def compute_loss(self, ids: Tensor, targets: Tensor, states: States) -> tuple[Losses, States, Outputs]:
        """How well `targets` [T, B] are predicted, without all the logits; and what the penalties of training see."""
        outputs, states = self.unroll(ids, states)
        return head_losses(self.head, outputs.dropped, targets, self.label_smoothing), states, outputs

    def unroll(self, ids: Tensor, states: States) -> tuple[Outputs, States]:
        """What there is to predict from after each of the ids [T, B]."""
        resets = NOWHERE if self.end_of_document is None else Resets(ids != self.end_of_document)
        outputs, states = self.stack(ids, self.embedding.weight, states, resets)
        dropped = torch.cat([self.stack.apply_dropout(y) for y in outputs[-self.heads_read :]], -1)
        return Outputs(outputs[-1], dropped, resets.keep), states

    def initial_state(self, batch: int) -> States:
        """The state of B texts of which nothing has been read."""
        return self.stack.initial_state(batch)


def head_losses(head: Head, read: Tensor, targets: Tensor, label_smoothing: float) -> Losses:
    """How well a head predicts `targets` [T, B] from what it reads [T, B, N]."""
    x, y = head.project(read).flatten(0, 1), targets.flatten()
    return Losses(*linear_cross_entropy(x, head.weight, head.bias, y, label_smoothing))


def detach_states(states: States) -> States:
    """The same state in float32, cut off from the graph that led to it: where truncated BPTT truncates."""
    return [tuple(part.detach().float() for part in state) for state in states]
