"""Sequences that start afresh on their way, each at its own steps: what that changes in every kernel.

Let k_t be 0 for a sequence that starts afresh before step t, and else 1. Step t then reads k_t h_{t-1} wherever a
cell's equations have h_{t-1}, its weights' gradients too, and the error that it gives back is on that, so that

    dh_{t-1} = k_t (what the step gives back)  (+ dy_{t-1})

and c_{t-1} likewise: nothing passes a fresh start, forwards or backwards, be it the first step's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


class Resets:
    """Where sequences start afresh: `keep` [T, B] is false where one does so before step t; None is nowhere.

    A step at which no sequence does costs nothing.
    """

    def __init__(self, keep: Tensor | None = None) -> None:
        self.some: list[bool] = [] if keep is None else (~keep).any(1).tolist()
        self.keep = keep[..., None] if keep is not None and any(self.some) else None

    def before(self, buffer: Tensor, *carries: Tensor) -> Iterable[Tensor]:
        """k_t h_{t-1} for each step, [B, H], of a buffer [T+1, B, H] that the steps fill on their way.

        `carries`, the state in other types, are multiplied by k_t in place when it is the step's turn.
        """
        return buffer[:-1] if self.keep is None else self.cleared(buffer[:-1], carries)

    def cleared(self, buffer: Tensor, carries: tuple[Tensor, ...]) -> Iterator[Tensor]:
        for before, k, *others in zip(buffer, *map(self.factors, (buffer, *carries)), strict=True):
            scale(carries, others)
            yield before if k is None else before * k

    def seen(self, buffer: Tensor) -> Tensor:
        """What `before` gave, for all steps at once, [T, B, H]."""
        return buffer[:-1] if self.keep is None else buffer[:-1] * self.keep.to(buffer.dtype)

    def cut(self, steps_back: Iterator[Any], *errors: Tensor) -> Iterator[Any]:
        """The same steps; once each is done, `errors`, which are on the state before it, are multiplied by k_t."""
        return steps_back if self.keep is None else self.shortened(steps_back, errors)

    def shortened(self, steps_back: Iterator[Any], errors: tuple[Tensor, ...]) -> Iterator[Any]:
        for step, *factors in zip(steps_back, *(reversed(self.factors(error)) for error in errors), strict=True):
            yield step
            scale(errors, factors)

    def clear(self, a: Tensor) -> None:
        """Makes a_t k_t a_t, for all steps of a [T, B, N]."""
        if self.keep is not None:
            scale(a, self.factors(a))

    def restarted(self, state: tuple[Tensor, ...], t: int) -> tuple[Tensor, ...]:
        """The state [B, H] that step t reads; a copy, through which autograd finds its way."""
        keep = self.keep
        return state if keep is None or not self.some[t] else tuple(part * keep[t] for part in state)

    def factors(self, like: Tensor) -> list[Tensor | None]:
        """k_t [B, 1] of each step, in the type of a tensor like this; None where it is 1 for all."""
        assert self.keep is not None
        return [k if some else None for k, some in zip(self.keep.to(like.dtype), self.some, strict=True)]


NOWHERE = Resets()


def scale(tensors: Iterable[Tensor], factors: Iterable[Tensor | None]) -> None:
    """Each tensor times its factor, in place."""
    for tensor, k in zip(tensors, factors, strict=True):
        if k is not None:
            tensor.mul_(k)
