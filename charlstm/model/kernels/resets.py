"""Resets: sequences that restart from the zero state within a window, each at its own steps.

Let k_t be 0 for a sequence that restarts before step t, and 1 otherwise. Step t reads k_t h_{t-1} wherever a cell's
equations have h_{t-1}, also in the gradients of its weights. The gradient therefore passes through the same factor:

    dh_{t-1} = k_t (gradient of step t)  (+ dy_{t-1})

The same holds for c_{t-1}. Nothing crosses a reset, forward or backward, not even at the first step.
"""

from __future__ import annotations

from torch import Tensor


class Resets:
    """The steps before which sequences restart. `keep` [T, B] is k_t as booleans; None means no resets.

    A step without a reset costs nothing on a CPU. A GPU is not asked which they are: it would have to be waited for.
    """

    def __init__(self, keep: Tensor | None = None) -> None:
        restarts: list[bool] = []
        if keep is not None:
            restarts = (~keep).any(1).tolist() if keep.device.type == "cpu" else [True] * len(keep)
        self.keep = keep[..., None] if keep is not None and any(restarts) else None
        self.restarts = restarts

    def masks(self, steps: int) -> list[Tensor | None]:
        """Return k_t [B, 1] for each of T steps, None where no sequence restarts."""
        if self.keep is None:
            return [None] * steps
        return [k if restart else None for k, restart in zip(self.keep, self.restarts, strict=True)]

    def mask(self, a: Tensor) -> Tensor:
        """Return k_t a_t for all steps of a [T, B, N]: the states that the steps read, given the states before them."""
        return a if self.keep is None else a * self.keep

    def mask_(self, a: Tensor) -> None:
        """Multiply a_t by k_t in place, for all steps of a [T, B, N]."""
        if self.keep is None:
            return
        for a_t, k in zip(a, self.masks(len(a)), strict=True):
            if k is not None:
                a_t.mul_(k)


NO_RESETS = Resets()
