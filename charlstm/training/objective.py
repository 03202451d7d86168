"""The training objective: the mean of the model's losses, and penalties that make the network smoother.

The losses themselves, with label smoothing, are in `model/kernels/cross_entropy.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.config import Config, RegularizationConfig
from charlstm.model.kernels.mean_square import mean_square, mean_square_change
from charlstm.model.language_model import Objective, StackOutputs


def total_loss(objectives: list[Objective], config: Config) -> Tensor:
    """Return the weighted mean of a model's losses, each with the penalties on its stack.

    A bidirectional model has three losses: forward, backward and joint.
    """
    weights = (config.training.forward_weight, config.training.backward_weight, config.training.joint_weight)
    terms = [
        weight * (add_penalties(losses.smoothed, outputs, config.regularization) if outputs else losses.smoothed)
        for weight, (losses, outputs) in zip(weights, objectives, strict=False)
    ]
    return torch.stack(terms).sum() / sum(weights[: len(terms)])


def add_penalties(loss: Tensor, outputs: StackOutputs, config: RegularizationConfig) -> Tensor:
    """Return the loss with the penalties on the output y [T, B, H] of the top layer (Merity et al. 2017, sec. 4.7).

    AR: activation_penalty * mean(dropout(y_t)^2). TAR: temporal_penalty * mean((y_t - y_{t-1})^2). A change at the
    start of a document does not count.
    """
    if config.activation_penalty:
        loss = loss + config.activation_penalty * mean_square(outputs.head_input)
    if config.temporal_penalty and len(outputs.top) > 1:
        loss = loss + config.temporal_penalty * mean_square_change(outputs.top, outputs.keep)
    return loss
