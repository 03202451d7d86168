"""Dropout of units, embedding rows and weights. What remains is scaled to keep the mean. A rate of 0 draws nothing.

A batch may be read in parts, by one process after another or by several at once. Each part then draws the masks of the
whole batch and uses those of its own streams, so that the masks do not depend on how the batch is divided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor

DrawMask = Callable[[float, tuple[int, ...], torch.device], Tensor]

part: tuple[int, int] | None = None
"""First stream of the part of a batch that is being read, and number of streams of the batch; None: all of it."""


@contextmanager
def part_of_batch(first: int, batch_size: int) -> Iterator[None]:
    """Read the streams of a batch of this size from `first` on within the context."""
    global part
    before, part = part, (first, batch_size)
    try:
        yield
    finally:
        part = before


def draw_mask(rate: float, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw a mask that is true with this probability, rounded to 1/256 (at least 1/256, at most 255/256).

    One random 64-bit word gives eight entries. torch's own Bernoulli mask takes a third of the time of a training step
    of a small network on a CPU; this one takes a fiftieth.
    """
    words = torch.empty(-(-prod(shape) // 8), dtype=torch.int64, device=device).random_(-(2**63), None)
    return words.view(torch.uint8)[: prod(shape)].view(shape) < to_256ths(rate)


def to_256ths(rate: float) -> int:
    return min(max(round(256 * rate), 1), 255)


def draw_stream_mask(rate: float, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw a mask [..., B, H] as `draw_mask` does: the part of that of the whole batch that these streams have."""
    *steps, streams, width = shape
    first, batch_size = part or (0, streams)
    return draw_mask(rate, (*steps, batch_size, width), device).narrow(-2, first, streams)


def scaled_mask(like: Tensor, rate: float, shape: tuple[int, ...], draw: DrawMask) -> Tensor:
    """Return a mask that is 0 for dropped entries and the inverse of the share that remains for the others."""
    remaining = to_256ths(1 - rate)
    return draw(remaining / 256, shape, like.device).to(like.dtype).mul_(256 / remaining)


def drop_units(y: Tensor, rate: float, per: str) -> Tensor:
    """Drop units of y [T, B, H]: others at every step (Zaremba et al. 2014), or the same in the whole window.

    Args:
        per: "step" or "window" (Gal & Ghahramani 2016).
    """
    if not rate:
        return y
    return y * scaled_mask(y, rate, (1, *y.shape[1:]) if per == "window" else y.shape, draw_stream_mask)


def drop_rows(table: Tensor, rate: float) -> Tensor:
    """Drop rows of an embedding [V, E], the same in the whole window (Gal & Ghahramani 2016)."""
    return table * scaled_mask(table, rate, (len(table), 1), draw_mask) if rate else table


def drop_weights(weight: Tensor, rate: float) -> Tensor:
    """Drop entries of a matrix for the whole window: DropConnect (Wan et al. 2013; Merity et al. 2017, sec. 2)."""
    return weight * scaled_mask(weight, rate, weight.shape, draw_mask) if rate else weight
