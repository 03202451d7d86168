"""Exchange of parameters between a torch module and a model file."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from charlstm.architecture import names_by_torch_name
from charlstm.cells import Array, Weights
from charlstm.config import ModelConfig


class ExportableModule(nn.Module):
    """A module whose parameters are the weights of a model file (`charlstm.architecture.list_weights`)."""

    config: ModelConfig

    def export_weights(self) -> dict[str, Array]:
        """Return a copy of the parameters by their names in a model file."""
        names = names_by_torch_name(self.config)
        return {names[path]: parameter.detach().cpu().numpy().copy() for path, parameter in self.named_parameters()}

    @torch.no_grad()
    def load_weights(self, weights: Weights) -> None:
        """Copy weights, by their names in a model file, into the parameters.

        Raises KeyError if one is missing, ValueError if one has another shape.
        """
        names = names_by_torch_name(self.config)
        for path, parameter in self.named_parameters():
            weight = weights[names[path]]
            if weight.shape != parameter.shape:
                raise ValueError(f"{names[path]} has shape {weight.shape}; the model needs {tuple(parameter.shape)}")
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
