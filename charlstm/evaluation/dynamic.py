"""A model that goes on learning from the text it reads: dynamic evaluation (Krause et al. 2018, arXiv:1709.07432)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlstm.config import AdaptationConfig
from charlstm.errors import DivergedError
from charlstm.evaluation.forward import evaluation_mode
from charlstm.evaluation.streams import IdSequence, preceding_ids
from charlstm.model.language_model import LanguageModel, detach_states

WINDOW = 20
"""Characters between two updates."""

RMS_EPSILON = 0.1

SMALLEST = 1e-30
"""Stands in for a mean gradient of 0, as that of a model with one symbol is."""


def score_dynamically(
    model: LanguageModel, ids: IdSequence, bos: int, config: AdaptationConfig
) -> Iterator[NDArray[np.float32]]:
    """As `adapt`; afterwards, or when the iterator is closed, the model is as it was, bit for bit."""
    before = [parameter.detach().clone() for parameter in model.parameters()]
    try:
        yield from adapt(model, ids, bos, config)
    finally:
        restore_parameters(model, before)


def adapt(model: LanguageModel, ids: IdSequence, bos: int, config: AdaptationConfig) -> Iterator[NDArray[np.float32]]:
    """Reads a text given as ids [length] and changes the model's weights to predict it better, window by window.

    Gives the natural log-probabilities of each window's characters, [n], as they were before the weights learnt from
    it. The text is read in one stream, from the start symbol on. Raises DivergedError if the loss is no longer a
    number, as at too high a rate.
    """
    device = model.head.weight.device
    updates = DynamicUpdate(list(model.parameters()), config)
    states = model.initial_state(1)
    with evaluation_mode(model):
        model.stack.enable_gradients()
        for t in range(0, len(ids), WINDOW):
            places = np.arange(t, min(t + WINDOW, len(ids)))
            x = torch.from_numpy(preceding_ids(ids, places, bos)).to(device)
            y = torch.from_numpy(ids[places].astype(np.int64)).to(device)
            logits, states = model(x[:, None], detach_states(states))
            log_p = logits[:, 0].log_softmax(-1).gather(1, y[:, None])[:, 0]
            updates.step(torch.autograd.grad(-log_p.mean(), updates.parameters))
            yield log_p.detach().cpu().numpy()


@torch.no_grad()
def restore_parameters(model: LanguageModel, before: list[Tensor]) -> None:
    for parameter, value in zip(model.parameters(), before, strict=True):
        parameter.copy_(value)


class DynamicUpdate:
    """The update rule of dynamic evaluation with RMS-normalised gradients and decay to the trained weights.

    With g the gradient of a window's loss, RMS the root mean square of such gradients, theta_0 the weights as they
    were trained, all weight by weight, and mean(RMS) the one mean over all weights,

        theta <- theta - rate * g / (RMS + epsilon * mean(RMS)) + min(decay * RMS / mean(RMS), 1) * (theta_0 - theta)

    The paper takes the RMS over the training text, which a model file does not hold; here it is over the windows
    read so far, the newest one included. Its epsilon is a number; here it is relative, so that the rate means the
    same for every model.
    """

    def __init__(self, parameters: list[nn.Parameter], config: AdaptationConfig) -> None:
        self.parameters, self.config = parameters, config
        self.trained = [parameter.detach().clone() for parameter in parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in parameters]
        self.count = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Updates the parameters. Raises DivergedError, with them as they were, if a gradient is no number."""
        self.count += 1
        for square, gradient in zip(self.squares, gradients, strict=True):
            square.addcmul_(gradient, gradient)
        rms = [(square / self.count).sqrt_() for square in self.squares]
        mean = float(sum(part.sum() for part in rms)) / sum(part.numel() for part in rms)
        if not isfinite(mean):
            raise DivergedError(
                f"adapting to the text diverged at window {self.count}: the loss is no longer a number",
                "lower --adapt-rate",
            )
        mean = max(mean, SMALLEST)
        for parameter, gradient, trained, part in zip(self.parameters, gradients, self.trained, rms, strict=True):
            parameter.lerp_(trained, (part * (self.config.adapt_decay / mean)).clamp_(max=1))
            parameter.addcdiv_(gradient, part.add_(RMS_EPSILON * mean), value=-self.config.adapt_rate)
