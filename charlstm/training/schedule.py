"""The learning rate over the course of training."""

from __future__ import annotations

from math import cos, pi

from charlstm.config import TrainingConfig

PLATEAU_LENGTH = 2
"""Validations without a better loss that make a plateau."""

PLATEAU_FACTOR = 0.5
"""Factor on the learning rate at each plateau, with the plateau schedule."""

MIN_WARMUP_SHARE = 0.01
"""The warm-up starts at this share of the peak: at 0, the first step would do nothing."""


def learning_rate(config: TrainingConfig, done: float, plateaus: int = 0) -> float:
    """Return the learning rate: a linear warm-up to the peak, then the schedule.

    `done` is the share of the training done, 0 to 1. `plateaus` is how many times the validation loss has stopped
    falling. The cosine is half a period, from the peak to `final_lr` (Loshchilov & Hutter 2017, eq. 5).
    """
    if done < config.warmup:
        return config.lr * max(done / config.warmup, MIN_WARMUP_SHARE)
    if config.schedule == "plateau":
        return config.lr * PLATEAU_FACTOR**plateaus
    if config.schedule == "constant":
        return config.lr
    position = min((done - config.warmup) / max(1 - config.warmup, 1e-9), 1.0)
    decay = (1 + cos(pi * position)) / 2 if config.schedule == "cosine" else 1 - position
    return config.lr * (config.final_lr + (1 - config.final_lr) * decay)
