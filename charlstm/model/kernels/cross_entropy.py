"""The head and its loss in one: the mean cross-entropy of what a linear layer predicts, without all its logits.

For N places with inputs x_n [H], targets y_n and V symbols, let

    z_n = W x_n + b     p_n = softmax(z_n)     loss = mean_n -log p_n[y_n] = mean_n (log sum_k exp z_nk - z_n[y_n])

With label smoothing s (Szegedy et al. 2016, sec. 7) the target is q_n = (1 - s) onehot(y_n) + s/V, and

    smoothed = mean_n -sum_k q_nk log p_nk = loss + s (mean_n z_n[y_n] - mean_nk z_nk),    mean_nk z_nk = w.x + mean(b)

where w and x are the means of W's rows and of the inputs, so nothing has to be summed over logits. The errors are

    dz_n = (p_n - q_n) / N
    dx_n = W^T dz_n     dW = sum_n dz_n x_n^T     db = sum_n dz_n

As the loss is the end of the graph, all of them are known as soon as the logits are. So the places are taken a chunk
at a time: logits, in place the errors on them, two products, next chunk; dW and db add up in float32, and `backward`
has only to scale. Memory is that of one chunk, [N, V] never exists, and where a processor has a cache of some MB a
chunk's logits never leave it. Products are in the inputs' precision, what is between them in float32.
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

MAX_CHUNK_LOGITS = 2**21
"""Logits in a chunk: 4 MB in bfloat16."""

MIN_CHUNK_POSITIONS = 256
"""Places in a chunk at least, however many symbols: with fewer, adding up dW costs as much as the products."""


def linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mean loss in nats of inputs x [N, H] and targets [N], and the same with label smoothing, to be minimised.

    Only the second has a gradient. Under autocast the products are in its precision.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    loss, smoothed = LinearCrossEntropy.apply(x, weight, bias, targets, smoothing)  # type: ignore[no-untyped-call]
    return loss, smoothed


class LinearCrossEntropy(torch.autograd.Function):
    """`linear_cross_entropy`, for autograd."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        w, scale = weight.to(x.dtype), 1 / len(x)
        dx, dw, db = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        chunk = choose_chunk_size(len(x), len(w))
        buffer = x.new_empty(chunk, len(w))
        loss = own = bias.new_zeros(())
        for x_c, y_c, dx_c in zip(*(part.split(chunk) for part in (x, targets, dx)), strict=True):  # type: ignore[no-untyped-call]
            logits = torch.mm(x_c, w.t(), out=buffer[: len(x_c)])
            loss_c, own_c = choose_softmax_gradient(logits)(logits, bias, y_c, smoothing, scale, db)
            loss, own = loss + loss_c * scale, own + own_c * scale
            torch.mm(logits, w, out=dx_c)
            dw.add_(torch.mm(logits.t(), x_c))
        ctx.save_for_backward(dx, dw, db)
        ctx.mark_non_differentiable(loss)
        return loss, smooth_loss(loss, own, x, w, bias, smoothing) if smoothing else loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, error: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw, db = ctx.saved_tensors if error == 1 else [own * error for own in ctx.saved_tensors]
        return dx, dw, db, None, None


def smooth_loss(loss: Tensor, own: Tensor, x: Tensor, weight: Tensor, bias: Tensor, smoothing: float) -> Tensor:
    """The loss with label smoothing, from that without and the mean of the targets' own logits."""
    mean = (at_least_float32(x).mean(0) * at_least_float32(weight).mean(0)).sum() + bias.mean()
    return loss + smoothing * (own - mean)


def choose_chunk_size(places: int, symbols: int) -> int:
    """The size of a chunk; chunks are nearly of the same size."""
    chunks = ceil(places * symbols / MAX_CHUNK_LOGITS)
    return ceil(places / max(min(chunks, places // MIN_CHUNK_POSITIONS), 1))


def choose_softmax_gradient(logits: Tensor) -> Callable[..., tuple[Any, Any]]:
    """`errors`, or what stands in for it on a CPU, in float32 or bfloat16, where there is numba."""
    fits = logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.bfloat16)
    compiled = load_compiled_softmax() if fits else None
    return compiled.fused_softmax_gradient if compiled else softmax_gradient


@cache
def load_compiled_softmax() -> ModuleType | None:
    """`softmax.py`; None where numba cannot be had."""
    if not load_fused():
        return None
    from charlstm.model.kernels import softmax

    return softmax


def softmax_gradient(
    logits: Tensor, bias: Tensor, targets: Tensor, smoothing: float, scale: float, sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Turns logits [n, V], to which the bias is still to be added, into the errors (p - q) * scale on them.

    Adds the errors' sum over places to `sums` [V]. Gives the sum of the losses, and that of the targets' own logits.
    """
    z = logits + bias  # in the bias's precision
    log_p, place = z.log_softmax(1), targets[:, None]
    loss, own = -log_p.gather(1, place).sum(), z.gather(1, place).sum()
    error = log_p.exp_().mul_(scale)
    if smoothing:
        error.sub_(scale * smoothing / len(bias))
    error.scatter_add_(1, place, error.new_full(place.shape, scale * (smoothing - 1)))
    sums.add_(error.sum(0))
    logits.copy_(error)
    return loss, own
