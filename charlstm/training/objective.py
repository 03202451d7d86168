"""What is added to the loss while training, to make the network smoother."""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.config import Config, RegularizationConfig
from charlstm.model.language_model import Objective, StackOutputs


def total_loss(objectives: list[Objective], config: Config) -> Tensor:
    """The weighted mean of a model's losses, each with the penalties on the stack that it is of."""
    weights = (config.training.forward_weight, config.training.backward_weight, config.training.joint_weight)
    terms = [
        weight * (add_penalties(losses.smoothed, outputs, config.regularization) if outputs else losses.smoothed)
        for weight, (losses, outputs) in zip(weights, objectives, strict=False)
    ]
    return torch.stack(terms).sum() / sum(weights[: len(terms)])


def add_penalties(loss: Tensor, outputs: StackOutputs, config: RegularizationConfig) -> Tensor:
    """The loss to be minimised, from the cross-entropy in nats per character.

    The penalties are on the size and on the change of the top layer's output (Merity et al. 2017, sec. 4.7); what
    changes where another document begins is none of it.
    """
    if config.activation_penalty:
        loss = loss + config.activation_penalty * outputs.head_input.float().square().mean()
    if config.temporal_penalty and len(outputs.top) > 1:
        change = outputs.top.float().diff(dim=0)
        change = change if outputs.keep is None else change * outputs.keep[1:]
        loss = loss + config.temporal_penalty * change.square().mean()
    return loss
