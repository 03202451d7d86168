"""Dynamic evaluation: the model learns from the text as it reads it (Krause et al. 2018, arXiv:1709.07432)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlstm.config import AdaptationConfig
from charlstm.errors import DivergedError
from charlstm.evaluation.forward import ONE_STREAM_THREADS, evaluation_mode
from charlstm.evaluation.streams import IdSequence, preceding_ids
from charlstm.model.device import use_threads
from charlstm.model.language_model import LanguageModel, detach_states

WINDOW = 20
"""Characters between two updates of the weights, as in the paper."""

RMS_EPSILON = 0.1
"""Share of the mean RMS that is added to each weight's own: it bounds the step of weights with small gradients."""

MIN_MEAN_RMS = 1e-30
"""Replaces a mean RMS of 0, which a vocabulary of one symbol has."""


def predict_dynamically(
    model: LanguageModel, ids: IdSequence, bos: int, config: AdaptationConfig
) -> Generator[NDArray[np.float32]]:
    """Predict a text as `adapt` does. At the end, or when the iterator is closed, the weights are restored exactly."""
    before = [parameter.detach().clone() for parameter in model.parameters()]
    try:
        yield from adapt(model, ids, bos, config)
    finally:
        restore_parameters(model, before)


def adapt(model: LanguageModel, ids: IdSequence, bos: int, config: AdaptationConfig) -> Iterator[NDArray[np.float32]]:
    """Read a text, ids [length], and update the model's weights after each window of WINDOW characters.

    Yields the natural log-probabilities of all symbols at each place of a window, [n, V], before the update. The text
    is read after BOS in one stream. Raises DivergedError if a gradient is not finite, as with too high a rate.
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
            with use_threads(ONE_STREAM_THREADS):
                logits, states = model(x[:, None], detach_states(states))
                log_p = logits[:, 0].log_softmax(-1)
                loss = -log_p.gather(1, y[:, None]).mean()
                updates.step(torch.autograd.grad(loss, updates.parameters))
            yield log_p.detach().cpu().numpy()


@torch.no_grad()
def restore_parameters(model: LanguageModel, before: list[Tensor]) -> None:
    """Copy `before` into the model's parameters."""
    for parameter, value in zip(model.parameters(), before, strict=True):
        parameter.copy_(value)


class DynamicUpdate:
    """The update rule of dynamic evaluation, with RMS-normalized gradients and decay to the trained weights.

    Let g be the gradient of a window's loss, RMS the root mean square of these gradients so far and theta_0 the trained
    weights, each per weight, and mean(RMS) the mean over all weights. Then

        theta <- theta - rate * g / (RMS + epsilon * mean(RMS)) + min(decay * RMS / mean(RMS), 1) * (theta_0 - theta)

    The paper takes the RMS over the training text, which a model file does not contain. Here it is over the windows
    read so far, including the current one. The paper's epsilon is absolute. Here it is relative, so that one rate suits
    every model.
    """

    def __init__(self, parameters: list[nn.Parameter], config: AdaptationConfig) -> None:
        self.parameters, self.config = parameters, config
        self.trained = [parameter.detach().clone() for parameter in parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in parameters]
        self.count = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Update the parameters. Raises DivergedError, and leaves them as they are, if a gradient is not finite."""
        self.count += 1
        for square, gradient in zip(self.squares, gradients, strict=True):
            square.addcmul_(gradient, gradient)
        rms = [(square / self.count).sqrt_() for square in self.squares]
        mean = float(sum(part.sum() for part in rms)) / sum(part.numel() for part in rms)
        if not isfinite(mean):
            raise DivergedError(
                f"adapting to the text diverged at window {self.count}: the gradient is not finite",
                "lower --adapt-rate",
            )
        mean = max(mean, MIN_MEAN_RMS)
        for parameter, gradient, trained, part in zip(self.parameters, gradients, self.trained, rms, strict=True):
            parameter.lerp_(trained, (part * (self.config.adapt_decay / mean)).clamp_(max=1))
            parameter.addcdiv_(gradient, part.add_(RMS_EPSILON * mean), value=-self.config.adapt_rate)
