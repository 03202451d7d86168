"""The optimizers, and their moments as arrays.

The update rules are torch's functions. Its classes for them would also import its compiler, which takes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from charlstm.config import TrainingConfig
from charlstm.model.stack import Stack
from charlstm.training.muon import update_muon


@dataclass(frozen=True)
class Update:
    """What an update rule is given: weights, their gradients and their moments, each in the same order."""

    weights: list[Tensor]
    gradients: list[Tensor]
    moments: dict[str, list[Tensor]]
    lr: float
    weight_decay: float
    config: TrainingConfig
    fused: bool


def update_adam(update: Update, decoupled: bool = False) -> None:
    """Adam (Kingma & Ba 2015); with `decoupled`, AdamW (Loshchilov & Hutter 2019)."""
    adam(
        update.weights,
        update.gradients,
        update.moments["exp_avg"],
        update.moments["exp_avg_sq"],
        [],
        update.moments["step"],
        fused=update.fused,
        decoupled_weight_decay=decoupled,
        amsgrad=False,
        beta1=update.config.beta1,
        beta2=update.config.beta2,
        lr=update.lr,
        weight_decay=update.weight_decay,
        eps=1e-8,
        maximize=False,
    )


def update_adamw(update: Update) -> None:
    """AdamW: weight decay is decoupled from the gradient. With the other rules it is part of it."""
    update_adam(update, decoupled=True)


def update_rmsprop(update: Update) -> None:
    """RMSprop (Hinton 2012)."""
    rmsprop(
        update.weights,
        update.gradients,
        update.moments["square_avg"],
        [],
        [],
        update.moments["step"],
        lr=update.lr,
        alpha=update.config.beta2,
        eps=1e-8,
        weight_decay=update.weight_decay,
        momentum=0.0,
        centered=False,
    )


def update_adagrad(update: Update) -> None:
    """Adagrad (Duchi et al. 2011)."""
    adagrad(
        update.weights,
        update.gradients,
        update.moments["sum"],
        update.moments["step"],
        lr=update.lr,
        weight_decay=update.weight_decay,
        lr_decay=0.0,
        eps=1e-10,
        maximize=False,
    )


def update_sgd(update: Update) -> None:
    """SGD, with Nesterov momentum if it has a moment for that."""
    buffers = update.moments.get("momentum_buffer")
    momentum = update.config.beta1 if buffers else 0.0
    sgd(
        update.weights,
        update.gradients,
        [*buffers] if buffers else [None] * len(update.weights),
        fused=update.fused,
        weight_decay=update.weight_decay,
        momentum=momentum,
        lr=update.lr,
        dampening=0.0,
        nesterov=momentum > 0,
        maximize=False,
    )


class Rule(NamedTuple):
    """An update rule, and the moments that it has for a weight; `step` counts its updates."""

    update: Callable[[Update], None]
    moment_names: tuple[str, ...]


ADAMW = Rule(update_adamw, ("step", "exp_avg", "exp_avg_sq"))

RULES: dict[str, Rule] = {
    "adamw": ADAMW,
    "muon": ADAMW,
    "adam": Rule(update_adam, ("step", "exp_avg", "exp_avg_sq")),
    "rmsprop": Rule(update_rmsprop, ("step", "square_avg")),
    "adagrad": Rule(update_adagrad, ("step", "sum")),
    "sgd": Rule(update_sgd, ("momentum_buffer",)),
    "nt-asgd": Rule(update_sgd, ()),
}
"""Update rules by the name of the optimizer.

NT-ASGD (Merity et al. 2017) is plain SGD; `averaging.py` averages its weights once the validation loss stops falling.
Muon is for the matrices of the layers; this is its rule for all other weights.
"""


def make_muon_rule(hidden: int) -> Rule:
    """Return the rule of Muon for matrices of layers with this many units."""

    def update(update: Update) -> None:
        buffers, decay = update.moments["momentum_buffer"], update.weight_decay
        update_muon(update.weights, update.gradients, buffers, hidden=hidden, lr=update.lr, weight_decay=decay)

    return Rule(update, ("momentum_buffer",))


class WeightGroup(NamedTuple):
    """Weights that are updated by the same rule with the same weight decay."""

    weights: list[nn.Parameter]
    weight_decay: float
    rule: Rule


class Optimizer:
    """Updates the weights of a model from their gradients.

    Weight decay applies to matrices, not to biases and embeddings. A weight has moments once it was updated.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self.config = config
        rule, decay = RULES[config.optimizer], config.weight_decay
        decayed = weight_matrices(model)
        undecayed = [p for name, p in model.named_parameters() if p.ndim < 2 or name.startswith("embedding")]
        stacks = [module for module in model.modules() if isinstance(module, Stack) and config.optimizer == "muon"]
        layers = [p for stack in stacks for p in stack.parameters() if p.ndim == 2]
        others = [p for p in decayed if not any(p is each for each in layers)]
        self.groups = [WeightGroup(others, decay, rule), WeightGroup(undecayed, 0.0, rule)]
        if layers:  # matrices of layers and of the highways between them
            self.groups.append(WeightGroup(layers, decay, make_muon_rule(stacks[0].config.hidden)))
        self.fused = next(model.parameters()).device.type in ("cpu", "cuda")
        self.moments: dict[nn.Parameter, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update the weights that have a gradient, with this learning rate."""
        for group, weight_decay, rule in self.groups:
            weights = [weight for weight in group if weight.grad is not None]
            if not weights:
                continue
            for weight in weights:
                if weight not in self.moments:
                    self.moments[weight] = {name: initial_moment(name, weight) for name in rule.moment_names}
            rule.update(
                Update(
                    weights=[*weights],
                    gradients=[weight.grad for weight in weights if weight.grad is not None],
                    moments={name: [self.moments[weight][name] for weight in weights] for name in rule.moment_names},
                    lr=lr,
                    weight_decay=weight_decay,
                    config=self.config,
                    fused=self.fused,
                )
            )

    def export_moments(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any]:
        """Return the moments (such as `exp_avg`) of these parameters, by the name of the parameter."""
        return {
            name: {key: value.cpu().numpy().copy() for key, value in self.moments[parameter].items()}
            for name, parameter in parameters.items()
            if self.moments.get(parameter)
        }

    def load_moments(self, parameters: Mapping[str, nn.Parameter], moments: dict[str, Any]) -> None:
        """Load what `export_moments` returned. Raises ValueError for moments of other parameters or another rule."""
        if unknown := moments.keys() - parameters.keys():
            raise ValueError(f"optimizer moments of unknown parameters: {', '.join(sorted(unknown))}")
        self.moments.clear()
        rules = {parameter: group.rule for group in self.groups for parameter in group.weights}
        for name, parameter in parameters.items():
            saved = moments.get(name)
            if not saved:
                continue
            initial = {key: initial_moment(key, parameter) for key in rules[parameter].moment_names}
            if saved.keys() != initial.keys() or any(saved[key].shape != initial[key].shape for key in initial):
                raise ValueError(f"optimizer moments of {name} with other names or shapes")
            self.moments[parameter] = {
                key: torch.from_numpy(saved[key].copy()).to(initial[key].device) for key in initial
            }


def initial_moment(name: str, weight: nn.Parameter) -> Tensor:
    """Return a moment of this name for a weight that was not updated yet: zeros."""
    if name != "step":
        return torch.zeros_like(weight.detach())
    counted_on = weight.device if weight.device.type == "cuda" else "cpu"  # CUDA's fused step counts on the device
    return torch.zeros((), device=counted_on)


def weight_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the matrices of a model, except the embedding."""
    return [p for name, p in model.named_parameters() if p.ndim == 2 and not name.startswith("embedding")]
