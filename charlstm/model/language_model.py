"""The language model: ids of characters in, logits of the next character out."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from charlstm.config import ModelConfig, RegularizationConfig
from charlstm.model.bigrams import Bigrams
from charlstm.model.head import Head
from charlstm.model.kernels.cross_entropy import linear_cross_entropy
from charlstm.model.kernels.resets import NO_RESETS, Resets
from charlstm.model.layers import Engine
from charlstm.model.stack import Stack, TensorStates
from charlstm.model.weights import ExportableModule


class StackOutputs(NamedTuple):
    """Outputs of the layers at every step."""

    top: Tensor  # of the top layer, before dropout [T, B, H]
    head_input: Tensor  # what the head reads, after dropout [T, B, N]
    keep: Tensor | None = None  # [T, B, 1], false where a document begins; None: no document begins


class Losses(NamedTuple):
    """Mean losses per character, in nats."""

    nats: Tensor  # the cross-entropy; has no gradient
    smoothed: Tensor  # with label smoothing, the loss to minimize


class Objective(NamedTuple):
    """One of the losses that training minimizes, and the outputs of the layers for activation penalties."""

    losses: Losses
    outputs: StackOutputs | None


class LanguageModel(ExportableModule):
    """Embedding, recurrent layers and head: `logits, states = model(ids, states)`, ids [T, B] and logits [T, B, V].

    The first states are `model.initial_state(B)`. Every training, evaluation and adaptation goes through `unroll`.

    Args:
        config: architecture of the model.
        vocabulary_size: V.
        engine: implementation of the layers, "kernel" or "torch".
        regularization: dropout of embeddings and weights, and label smoothing.
        end_of_document: id of the symbol between documents. The state is reset before that symbol is read, so every
            document is read from the initial state.
        embedding: shared with another model; the default is an embedding of its own.

    Raises ValueError for `end_of_document` with the torch engine, which cannot reset states within a window.
    """

    look_ahead = 0
    """Characters after a window and its targets that training reads; only bidirectional models read any."""

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        engine: Engine = "kernel",
        regularization: RegularizationConfig = RegularizationConfig(),
        end_of_document: int | None = None,
        embedding: nn.Embedding | None = None,
    ) -> None:
        super().__init__()
        if end_of_document is not None and engine == "torch":
            raise ValueError("torch's layers cannot reset the state within a window")
        self.config = replace(config, bidirectional=False)
        self.end_of_document = end_of_document
        self.embedding = embedding or nn.Embedding(vocabulary_size, config.embedding)
        self.bigrams = Bigrams(config) if config.bigrams else None
        self.stack = Stack(config, engine, regularization)
        self.label_smoothing = regularization.label_smoothing
        self.head_layers = config.layers if config.head == "all" else 1
        self.head = Head(config.hidden * self.head_layers, self.embedding, config.head == "tied")

    def forward(self, ids: Tensor, states: TensorStates) -> tuple[Tensor, TensorStates]:
        outputs, states = self.unroll(ids, states)
        return self.head(self.head.project(outputs.head_input)), states

    def compute_objectives(self, window: Tensor, states: TensorStates) -> tuple[list[Objective], TensorStates]:
        """Return the losses of all characters of a window [T+1, B] except the first, and the states after T of them."""
        losses, states, outputs = self.compute_loss(window[:-1], window[1:], states)
        return [Objective(losses, outputs)], states

    def compute_loss(
        self, ids: Tensor, targets: Tensor, states: TensorStates
    ) -> tuple[Losses, TensorStates, StackOutputs]:
        """Return the losses of `targets` [T, B], the characters after `ids` [T, B], without storing all logits."""
        outputs, states = self.unroll(ids, states)
        return compute_head_losses(self.head, outputs.head_input, targets, self.label_smoothing), states, outputs

    def unroll(self, ids: Tensor, states: TensorStates) -> tuple[StackOutputs, TensorStates]:
        """Read ids [T, B] and return the outputs of the layers after each of them."""
        resets = NO_RESETS if self.end_of_document is None else Resets(ids != self.end_of_document)
        outputs, states = self.stack(ids, self.embedding.weight, states, resets, self.bigrams)
        head_input = torch.cat([self.stack.apply_dropout(y) for y in outputs[-self.head_layers :]], -1)
        return StackOutputs(outputs[-1], head_input, resets.keep), states

    def initial_state(self, batch: int) -> TensorStates:
        """Return the states of B sequences before their first character."""
        states = self.stack.initial_state(batch)
        return [*states, (states[0][0].new_zeros(batch, 1),)] if self.bigrams else states


def compute_head_losses(head: Head, head_input: Tensor, targets: Tensor, label_smoothing: float) -> Losses:
    """Return the losses of a head that reads `head_input` [T, B, N] and predicts `targets` [T, B]."""
    x, y = head.project(head_input).flatten(0, 1), targets.flatten()
    return Losses(*linear_cross_entropy(x, head.weight, head.bias, y, label_smoothing))


def detach_states(states: TensorStates) -> TensorStates:
    """Return the states detached from the graph (the truncation of truncated BPTT), in float32 at least."""
    return [
        tuple(array.detach().to(torch.promote_types(array.dtype, torch.float32)) for array in state) for state in states
    ]
