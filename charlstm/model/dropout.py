"""Leaving things out while training, each scaled up so that its mean stays. None of it draws where the share is 0."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor


def draw_mask(share: float, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """True for this share of the places, drawn; of 256, as many as come nearest, but one at least.

    Eight places are drawn from one random word: torch's own Bernoulli numbers take a third of a small network's step
    on a CPU, these a fiftieth.
    """
    words = torch.empty(-(-prod(shape) // 8), dtype=torch.int64, device=device).random_(-(2**63), None)
    return words.view(torch.uint8)[: prod(shape)].view(shape) < to_256ths(share)


def to_256ths(share: float) -> int:
    return min(max(round(256 * share), 1), 255)


def scaled_mask(like: Tensor, share: float, *shape: int) -> Tensor:
    """0 for what is left out, and for the rest a number that keeps the mean."""
    kept = to_256ths(1 - share)
    return draw_mask(kept / 256, shape, like.device).to(like.dtype).mul_(256 / kept)


def drop_units(y: Tensor, share: float, per: str) -> Tensor:
    """Units of y [T, B, H] left out: others at every step (Zaremba et al. 2014), or the same throughout the window."""
    if not share:
        return y
    return y * scaled_mask(y, share, *((1, *y.shape[1:]) if per == "window" else y.shape))


def drop_rows(table: Tensor, share: float) -> Tensor:
    """Rows of a table [V, E] left out: those characters are blanks throughout the window (Gal & Ghahramani 2016)."""
    return table * scaled_mask(table, share, len(table), 1) if share else table


def drop_weights(weight: Tensor, share: float) -> Tensor:
    """Entries of a matrix left out throughout the window (Wan et al. 2013; Merity et al. 2017, sec. 2)."""
    return weight * scaled_mask(weight, share, *weight.shape) if share else weight
