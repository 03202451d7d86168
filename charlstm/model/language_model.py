"""The whole model: characters in, logits of the next one out; and its way to and from a model file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlstm.config import ModelConfig, RegularisationConfig
from charlstm.model.kernels.cross_entropy import linear_cross_entropy
from charlstm.model.kernels.resets import NOWHERE, Resets
from charlstm.model.layers import Engine
from charlstm.model.stack import Stack, States

Weights = Mapping[str, NDArray[np.float32]]


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


class LanguageModel(nn.Module):
    """Embedding, stack, head. `logits, states = model(ids, states)` with ids [T, B] and logits [T, B, V].

    Where the id read is the `boundary`, the state is fresh before it, whatever was read: an item begins, and the
    boundary's own vector is what it begins with. Raises ValueError for a boundary with torch's operators.
    """

    def __init__(
        self,
        config: ModelConfig,
        size: int,
        engine: Engine = "kernel",
        regularisation: RegularisationConfig = RegularisationConfig(),
        boundary: int | None = None,
    ) -> None:
        super().__init__()
        if boundary is not None and engine == "torch":
            raise ValueError("torch's operators cannot start afresh within a sequence")
        self.boundary = boundary
        self.embedding = nn.Embedding(size, config.embedding)
        self.stack = Stack(config, engine, regularisation)
        self.label_smoothing = regularisation.label_smoothing
        read = config.hidden * (config.layers if config.head == "all" else 1)
        self.projection: nn.Module = nn.Identity()
        if config.head == "tied":
            read = config.embedding
            if config.embedding != config.hidden:
                self.projection = nn.Linear(config.hidden, config.embedding, bias=False)
        self.head = nn.Linear(read, size)
        nn.init.zeros_(self.head.bias)
        if config.head == "tied":
            self.head.weight = self.embedding.weight
        self.heads_read = config.layers if config.head == "all" else 1

    def forward(self, ids: Tensor, states: States) -> tuple[Tensor, States]:
        read, states, _ = self.read(ids, states)
        return self.head(read), states

    def loss(self, ids: Tensor, targets: Tensor, states: States) -> tuple[Losses, States, Outputs]:
        """How well `targets` [T, B] are predicted, without all the logits; and what the penalties of training see."""
        read, states, outputs = self.read(ids, states)
        x, y = read.flatten(0, 1), targets.flatten()
        losses = linear_cross_entropy(x, self.head.weight, self.head.bias, y, self.label_smoothing)
        return Losses(*losses), states, outputs

    def read(self, ids: Tensor, states: States) -> tuple[Tensor, States, Outputs]:
        """What the head predicts from [T, B, ...]."""
        resets = NOWHERE if self.boundary is None else Resets(ids != self.boundary)
        outputs, states = self.stack(ids, self.embedding.weight, states, resets)
        dropped = torch.cat([self.stack.drop(y) for y in outputs[-self.heads_read :]], -1)
        return self.projection(dropped), states, Outputs(outputs[-1], dropped, resets.keep)

    def start(self, batch: int) -> States:
        """The state of B texts of which nothing has been read."""
        return self.stack.start(batch)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the parameters under the model file's names (`charlstm.modelfile.shapes`)."""
        return {file_name(name): parameter.detach().cpu().numpy().copy() for name, parameter in self.named_parameters()}

    @torch.no_grad()
    def load_weights(self, weights: Weights) -> None:
        """The inverse of `weights`. Raises KeyError if one is missing, ValueError if one does not fit."""
        for name, parameter in self.named_parameters():
            weight = weights[file_name(name)]
            if weight.shape != parameter.shape:
                raise ValueError(f"{name} is {weight.shape} and not {tuple(parameter.shape)}")
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(weight)))


def file_name(name: str) -> str:
    """`stack.layers.0.core.weight_ih_l0`, torch's name, as `layers.0.weight_ih`."""
    return name.removeprefix("stack.").replace(".core.", ".").removesuffix("_l0")


def detach(states: States) -> States:
    """The same state in float32, cut off from the graph that led to it: where truncated BPTT truncates."""
    return [tuple(part.detach().float() for part in state) for state in states]
