"""AdamW on the model's parameters, and its moments as arrays."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from charlstm.config import TrainingConfig


def adamw(model: nn.Module, config: TrainingConfig) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019). Weight decay is for matrices that multiply: not for biases and embeddings."""
    spared = [p for name, p in model.named_parameters() if p.ndim < 2 or name.startswith("embedding")]
    decayed = [p for name, p in model.named_parameters() if not (p.ndim < 2 or name.startswith("embedding"))]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=fused)


def state_dict(optimiser: Optimizer, model: nn.Module) -> dict[str, Any]:
    """The moments of each parameter, by its name."""
    return {
        name: {key: value.detach().cpu().numpy().copy() for key, value in optimiser.state[parameter].items()}
        for name, parameter in model.named_parameters()
        if parameter in optimiser.state
    }


def load_state_dict(optimiser: Optimizer, model: nn.Module, state: dict[str, Any]) -> None:
    """The inverse of `state_dict`."""
    for name, parameter in model.named_parameters():
        for key, value in state.get(name, {}).items():
            counted_on_cpu = (
                key == "step" and parameter.device.type != "cuda"
            )  # only CUDA's fused step counts on the GPU
            device = "cpu" if counted_on_cpu else parameter.device
            optimiser.state[parameter][key] = torch.from_numpy(value.copy()).to(device)
