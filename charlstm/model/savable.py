"""A network's way to and from a model file: its parameters by the names that they have there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Weights = Mapping[str, NDArray[np.float32]]


class SavableModule(nn.Module):
    """A module whose parameters are a model file's weights."""

    def export_weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the parameters under the model file's names (`charlstm.storage.model.shapes`)."""
        return {
            to_file_name(name): parameter.detach().cpu().numpy().copy() for name, parameter in self.named_parameters()
        }

    @torch.no_grad()
    def load_weights(self, weights: Weights) -> None:
        """The inverse of `weights`. Raises KeyError if one is missing, ValueError if one does not fit."""
        for name, parameter in self.named_parameters():
            weight = weights[to_file_name(name)]
            if weight.shape != parameter.shape:
                raise ValueError(f"{name} is {weight.shape} and not {tuple(parameter.shape)}")
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(weight)))


def to_file_name(name: str) -> str:
    """`stack.layers.0.core.weight_ih_l0`, torch's name, as `layers.0.weight_ih`; what is of the backward half begins
    with `backward.`."""
    name = (
        name.removeprefix("forward_lm.").replace("backward_lm.", "backward.").replace("head.projection", "projection")
    )
    return name.replace("stack.", "").replace(".core.", ".").removesuffix("_l0")
