"""The optimizers, and their moments as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from charlstm.config import TrainingConfig

ParameterGroups = list[dict[str, Any]]

OPTIMIZERS: dict[str, Callable[[ParameterGroups, TrainingConfig, bool], Optimizer]] = {
    "adamw": lambda groups, c, fused: AdamW(groups, lr=c.lr, betas=(c.beta1, c.beta2), fused=fused),
    "adam": lambda groups, c, fused: Adam(groups, lr=c.lr, betas=(c.beta1, c.beta2), fused=fused),
    "rmsprop": lambda groups, c, fused: RMSprop(groups, lr=c.lr, alpha=c.beta2),
    "adagrad": lambda groups, c, fused: Adagrad(groups, lr=c.lr),
    "sgd": lambda groups, c, fused: SGD(groups, lr=c.lr, momentum=c.beta1, nesterov=c.beta1 > 0, fused=fused),
    "nt-asgd": lambda groups, c, fused: SGD(groups, lr=c.lr, fused=fused),
}
"""Optimizers by name.

- adamw: Loshchilov & Hutter 2019. Weight decay is decoupled from the gradient; with the others it is part of it.
- adam: Kingma & Ba 2015.
- rmsprop: Hinton 2012.
- adagrad: Duchi et al. 2011.
- sgd: with Nesterov momentum.
- nt-asgd: Merity et al. 2017. Plain SGD; `averaging.py` averages its weights once the validation loss stops falling.
"""


def build_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """Return the optimizer of these settings. Weight decay applies to matrices, not to biases and embeddings."""
    undecayed = [p for name, p in model.named_parameters() if p.ndim < 2 or name.startswith("embedding")]
    groups = [
        {"params": weight_matrices(model), "weight_decay": config.weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return OPTIMIZERS[config.optimizer](groups, config, fused)


def weight_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the matrices of a model, except the embedding."""
    return [p for name, p in model.named_parameters() if p.ndim == 2 and not name.startswith("embedding")]


def export_moments(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any]:
    """Return the moments (such as `exp_avg`) of these parameters, by the name of the parameter."""
    return {
        name: {
            key: value.detach().cpu().numpy().copy()
            for key, value in optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }
        for name, parameter in parameters.items()
        if parameter in optimizer.state
    }


def load_moments(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], config: TrainingConfig, moments: dict[str, Any]
) -> None:
    """Load what `export_moments` returned. Raises ValueError for moments of other parameters or another optimizer."""
    if unknown := moments.keys() - parameters.keys():
        raise ValueError(f"optimizer moments of unknown parameters: {', '.join(sorted(unknown))}")
    expected = moment_names(config)
    optimizer.state.clear()
    for name, parameter in parameters.items():
        saved = moments.get(name, {})
        if set(saved) not in (set(), expected) or any(v.shape not in ((), parameter.shape) for v in saved.values()):
            raise ValueError(f"optimizer moments of {name} with other names or shapes")
        for key, value in saved.items():
            # Only CUDA's fused step counts its steps on the device.
            counted_on_cpu = key == "step" and parameter.device.type != "cuda"
            device = "cpu" if counted_on_cpu else parameter.device
            optimizer.state[parameter][key] = torch.from_numpy(value.copy()).to(device)


def moment_names(config: TrainingConfig) -> set[str]:
    """Return the names of the moments that the optimizer of these settings has for each parameter."""
    model = nn.Linear(1, 1)
    model.weight.grad = torch.zeros(1, 1)
    optimizer = build_optimizer(model, config)
    optimizer.step()
    return set(export_moments(optimizer, dict(model.named_parameters())).get("weight", {}))
