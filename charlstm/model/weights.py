"""Exchange of parameters between a torch module and a model file."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from charlstm.architecture import names_by_torch_name
from charlstm.cells import Weights
from charlstm.config import ModelConfig
from charlstm.matrices import Array


class ExportableModule(nn.Module):
    """A module whose parameters are the weights of a model file (`charlstm.architecture.list_weights`)."""

    config: ModelConfig

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """Return the parameters by their names in a model file, which do not depend on the names of the modules."""
        names = names_by_torch_name(self.config)
        return {names[path]: parameter for path, parameter in self.named_parameters()}

    def export_weights(self) -> dict[str, Array]:
        """Return a copy of the parameters by their names in a model file."""
        return {name: parameter.detach().cpu().numpy().copy() for name, parameter in self.parameters_by_name().items()}

    @torch.no_grad()
    def load_weights(self, weights: Weights) -> None:
        """Copy weights, by their names in a model file, into the parameters.

        Raises KeyError if one is missing, ValueError if one has another shape.
        """
        for name, parameter in self.parameters_by_name().items():
            weight = weights[name]
            if weight.shape != parameter.shape:
                raise ValueError(f"{name} has shape {weight.shape}; the model needs {tuple(parameter.shape)}")
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
