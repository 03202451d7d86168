"""The learning rate over the course of training."""

from __future__ import annotations

from math import cos, pi

from charlstm.config import TrainingConfig

PLATEAU = 2
"""Validations without a better loss after which the rate is halved, with the plateau schedule."""


def learning_rate(config: TrainingConfig, done: float, plateaus: int = 0) -> float:
    """Linear warm-up, then as the schedule has it. `done` runs from 0 to 1; `stale` counts the plateaus so far.

    The cosine is half a one, down to the final rate (Loshchilov & Hutter 2017, eq. 5).
    """
    if done < config.warmup:
        return config.lr * max(done / config.warmup, 0.01)
    along = min((done - config.warmup) / max(1 - config.warmup, 1e-9), 1.0)
    shape = {
        "cosine": (1 + cos(pi * along)) / 2,
        "linear": 1 - along,
    }
    if config.schedule in shape:
        return config.lr * (config.final_lr + (1 - config.final_lr) * shape[config.schedule])
    return config.lr * 0.5**plateaus if config.schedule == "plateau" else config.lr
