"""Muon: momentum whose update is orthogonalized (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

For a matrix with gradient g and momentum m

    m <- 0.95 m + g        u = g + 0.95 m        w <- (1 - lr * decay) w - lr * 0.2 sqrt(max(rows, columns)) * O(u)

where O(u) has the singular vectors of u, and singular values near 1. With the factor, an update has about the size of
one of AdamW (Liu et al. 2025, arXiv:2502.16982, eq. 4). A weight matrix of G gates is G matrices of H rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from charlstm.model.device import cpu_has

MOMENTUM = 0.95
UPDATE_RMS = 0.2
"""Root mean square of an update at a learning rate of 1, as that of AdamW usually is."""

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of a x + b (x x^T) x + c (x x^T)^2 x, which five times brings singular values to 0.7 to 1.2."""

NEWTON_SCHULZ_STEPS = 5


def update_muon(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    buffers: Sequence[Tensor],
    *,
    hidden: int,
    lr: float,
    weight_decay: float,
) -> None:
    """Update matrices [G * hidden, C] and their momentum in place."""
    for weight, gradient, buffer in zip(weights, gradients, buffers, strict=True):
        buffer.mul_(MOMENTUM).add_(gradient)
        blocks = gradient.add(buffer, alpha=MOMENTUM).view(-1, hidden, weight.shape[1])
        scale = UPDATE_RMS * max(hidden, weight.shape[1]) ** 0.5
        weight.mul_(1 - lr * weight_decay)
        weight.add_(orthogonalize(blocks).view_as(weight), alpha=-lr * scale)


def orthogonalize(blocks: Tensor) -> Tensor:
    """Return each of these matrices, [G, R, C], with singular values near 1, by five steps of Newton and Schulz.

    In bfloat16 where products are fast in it: the result is approximate in any case.
    """
    is_wide = blocks.shape[1] <= blocks.shape[2]
    x = blocks if is_wide else blocks.transpose(1, 2)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_(min=1e-7)
    x = x.to(torch.bfloat16 if blocks.is_cuda or cpu_has("avx512_bf16", "amx_bf16", "bf16") else torch.float32)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    x = x.to(blocks.dtype)
    return x if is_wide else x.transpose(1, 2).contiguous()
