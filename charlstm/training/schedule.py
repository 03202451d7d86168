"""The learning rate over the course of training."""

from __future__ import annotations

from math import cos, pi

from charlstm.config import TrainingConfig


def learning_rate(config: TrainingConfig, done: float) -> float:
    """Linear warm-up, then half a cosine down (Loshchilov & Hutter 2017, eq. 5). `done` runs from 0 to 1."""
    if done < config.warmup:
        return config.lr * max(done / config.warmup, 0.01)
    along = (done - config.warmup) / max(1 - config.warmup, 1e-9)
    return config.lr * (config.final_lr + (1 - config.final_lr) * (1 + cos(pi * min(along, 1))) / 2)
