"""The output layer and its loss in one: mean cross-entropy of a linear layer, without storing all of its logits.

For N positions with inputs x_n [H], targets y_n and V symbols, let

    z_n = W x_n + b     p_n = softmax(z_n)     loss = mean_n -log p_n[y_n] = mean_n (log sum_k exp z_nk - z_n[y_n])

With label smoothing s (Szegedy et al. 2016, sec. 7) the target is q_n = (1 - s) onehot(y_n) + s/V, and

    smoothed = mean_n -sum_k q_nk log p_nk = loss + s (mean_n z_n[y_n] - mean_nk z_nk),    mean_nk z_nk = w.x + mean(b)

where w and x are the means of the rows of W and of the inputs, so no sum over all logits is needed. The gradients are

    dz_n = (p_n - q_n) / N
    dx_n = W^T dz_n     dW = sum_n dz_n x_n^T     db = sum_n dz_n

The loss is the end of the graph, so all of them are known as soon as the logits are. The forward pass therefore works
on one chunk of positions at a time: it computes the logits, replaces them with their gradients and multiplies twice.
dW and db accumulate in float32; `backward` only scales. The array [N, V] never exists, and on a processor with a cache
of a few MB the logits of a chunk never leave it. Products have the precision of the inputs, the rest is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import ceil
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charlstm.model.kernels.pointwise import load_fused
from charlstm.model.kernels.sequence import at_least_float32

MAX_LOGITS_PER_CHUNK = 2**21
"""Most logits in a chunk: 4 MB in bfloat16, which fits in the processor's cache."""

MIN_POSITIONS_PER_CHUNK = 256
"""Fewest positions in a chunk, whatever the vocabulary. With fewer, accumulating dW costs as much as the products."""


def linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the mean loss in nats for inputs x [N, H] and targets [N], and the same with label smoothing.

    Only the second has a gradient: it is the loss to minimize. Under autocast the products have autocast's precision.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    loss, smoothed = LinearCrossEntropy.apply(x, weight, bias, targets, smoothing)  # type: ignore[no-untyped-call]
    return loss, smoothed


class LinearCrossEntropy(torch.autograd.Function):
    """`linear_cross_entropy` as an autograd function."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        w, scale = weight.to(x.dtype), 1 / len(x)
        dx, dw, db = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        chunk = choose_chunk_size(len(x), len(w))
        buffer = x.new_empty(chunk, len(w))
        loss = target_logit = bias.new_zeros(())
        for x_c, y_c, dx_c in zip(*(a.split(chunk) for a in (x, targets, dx)), strict=True):  # type: ignore[no-untyped-call]
            logits = torch.mm(x_c, w.t(), out=buffer[: len(x_c)])
            loss_c, target_logit_c = choose_softmax_gradient(logits)(logits, bias, y_c, smoothing, scale, db)
            dz = logits  # overwritten
            loss, target_logit = loss + loss_c * scale, target_logit + target_logit_c * scale
            torch.mm(dz, w, out=dx_c)
            dw.add_(torch.mm(dz.t(), x_c))
        ctx.save_for_backward(dx, dw, db)
        ctx.mark_non_differentiable(loss)
        return loss, smooth_loss(loss, target_logit, x, w, bias, smoothing) if smoothing else loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, dloss: Tensor) -> tuple[Tensor | None, ...]:
        # Only a CPU is asked whether dloss is 1: the answer of a GPU would have to be waited for.
        is_one = dloss.device.type == "cpu" and dloss == 1
        dx, dw, db = ctx.saved_tensors if is_one else [gradient * dloss for gradient in ctx.saved_tensors]
        return dx, dw, db, None, None


def smooth_loss(
    loss: Tensor, target_logit: Tensor, x: Tensor, weight: Tensor, bias: Tensor, smoothing: float
) -> Tensor:
    """Return the loss with label smoothing, given the loss without it and the mean logit of the targets."""
    mean_logit = (at_least_float32(x).mean(0) * at_least_float32(weight).mean(0)).sum() + bias.mean()
    return loss + smoothing * (target_logit - mean_logit)


def choose_chunk_size(positions: int, symbols: int) -> int:
    """Return how many positions to process at a time. All chunks are of nearly the same size."""
    chunks = ceil(positions * symbols / MAX_LOGITS_PER_CHUNK)
    return ceil(positions / max(min(chunks, positions // MIN_POSITIONS_PER_CHUNK), 1))


def choose_softmax_gradient(logits: Tensor) -> Callable[..., tuple[Any, Any]]:
    """Return the compiled `softmax_gradient` if it supports these logits (float32 or bfloat16 on a CPU)."""
    fits = logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.bfloat16)
    compiled = load_compiled_softmax() if fits else None
    return compiled.fused_softmax_gradient if compiled else softmax_gradient


@cache
def load_compiled_softmax() -> ModuleType | None:
    """Import `softmax.py`. Returns None without numba."""
    if not load_fused():
        return None
    from charlstm.model.kernels import softmax

    return softmax


def softmax_gradient(
    logits: Tensor, bias: Tensor, targets: Tensor, smoothing: float, scale: float, bias_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Overwrite logits [n, V], which lack the bias, with their gradients (p - q) * scale.

    Adds the gradients of all positions to `bias_gradient` [V]. Returns the sum over positions of the losses and that of
    the target's logits.
    """
    z = logits + bias  # has the precision of the bias
    log_p, index = z.log_softmax(1), targets[:, None]
    loss, target_logit = -log_p.gather(1, index).sum(), z.gather(1, index).sum()
    dz = log_p.exp_().mul_(scale)
    if smoothing:
        dz.sub_(scale * smoothing / len(bias))
    dz.scatter_add_(1, index, dz.new_full(index.shape, scale * (smoothing - 1)))
    bias_gradient.add_(dz.sum(0))
    logits.copy_(dz)
    return loss, target_logit
