"""What turns gradients into steps, and its moments as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from charlstm.config import TrainingConfig

Groups = list[dict[str, Any]]

OPTIMIZERS: dict[str, Callable[[Groups, TrainingConfig, bool], Optimizer]] = {
    "adamw": lambda groups, c, fused: AdamW(groups, lr=c.lr, betas=(c.beta1, c.beta2), fused=fused),
    "adam": lambda groups, c, fused: Adam(groups, lr=c.lr, betas=(c.beta1, c.beta2), fused=fused),
    "rmsprop": lambda groups, c, fused: RMSprop(groups, lr=c.lr, alpha=c.beta2),
    "adagrad": lambda groups, c, fused: Adagrad(groups, lr=c.lr),
    "sgd": lambda groups, c, fused: SGD(groups, lr=c.lr, momentum=c.beta1, nesterov=c.beta1 > 0, fused=fused),
    "nt-asgd": lambda groups, c, fused: SGD(groups, lr=c.lr, fused=fused),
}
"""By name: AdamW (Loshchilov & Hutter 2019), where weight decay stands apart from the gradient; Adam (Kingma & Ba
2015), RMSprop (Hinton 2012), Adagrad (Duchi et al. 2011) and SGD with Nesterov's momentum, where it is a part of it;
and plain SGD, whose weights are averaged once the validation loss no longer falls (`averaging.py`)."""


def build_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """The optimizer of the settings. Weight decay is for matrices that multiply: not for biases and embeddings."""
    spared = [p for name, p in model.named_parameters() if p.ndim < 2 or name.startswith("embedding")]
    groups = [
        {"params": weight_matrices(model), "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return OPTIMIZERS[config.optimizer](groups, config, fused)


def weight_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights that multiply."""
    return [p for name, p in model.named_parameters() if p.ndim == 2 and not name.startswith("embedding")]


def state_dict(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any]:
    """Return the moments of each parameter, by its name in a model file."""
    return {
        name: {
            key: value.detach().cpu().numpy().copy()
            for key, value in optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }
        for name, parameter in parameters.items()
        if parameter in optimizer.state
    }


def moment_names(config: TrainingConfig) -> set[str]:
    """What the optimizer of these settings keeps of each parameter."""
    model = nn.Linear(1, 1)
    model.weight.grad = torch.zeros(1, 1)
    optimizer = build_optimizer(model, config)
    optimizer.step()
    return set(state_dict(optimizer, dict(model.named_parameters())).get("weight", {}))


def load_state_dict(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], config: TrainingConfig, state: dict[str, Any]
) -> None:
    """Restore what `state_dict` returned. Raises ValueError for moments of other parameters or another optimizer."""
    if unknown := state.keys() - parameters.keys():
        raise ValueError(f"the moments of {', '.join(sorted(unknown))}")
    known = moment_names(config)
    optimizer.state.clear()
    for name, parameter in parameters.items():
        saved = state.get(name, {})
        if set(saved) not in (set(), known) or any(v.shape not in ((), parameter.shape) for v in saved.values()):
            raise ValueError(f"the moments of {name}")
        for key, value in saved.items():
            counted_on_cpu = (
                key == "step" and parameter.device.type != "cuda"
            )  # only CUDA's fused step counts on the GPU
            device = "cpu" if counted_on_cpu else parameter.device
            optimizer.state[parameter][key] = torch.from_numpy(value.copy()).to(device)
