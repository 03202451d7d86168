"""Embedding lookup whose gradient is summed in float32, whatever the precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding

from charlstm.model.kernels.pointwise import load_fused
from charlstm.model.kernels.sequence import at_least_float32, merge_time_and_batch

ATEN: Any = torch.ops.aten
CHUNK_ROWS = 1024
"""Rows whose gradients are converted to float32 at a time: a few MB, which fit in the processor's cache."""


class Lookup(torch.autograd.Function):
    """The rows of a table [V, N] at ids [T, B], as [T, B, N].

    A batch looks up the same row a thousand times. Its gradient is a sum of that many terms, and half precision would
    lose most of them. Only the sum is in float32, not the gradients of all positions at once.
    """

    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows, ctx.dtype = len(table), table.dtype
        return embedding(ids, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor]:
        (ids,) = ctx.saved_tensors
        gradients, ids = merge_time_and_batch(dy.contiguous()), ids.flatten()
        if load_fused() and dy.device.type == "cpu" and dy.dtype in (torch.float32, torch.bfloat16):
            from charlstm.model.kernels.scatter import sum_rows

            return None, sum_rows(gradients, ids, ctx.rows).to(ctx.dtype)
        chunk = max(CHUNK_ROWS, ctx.rows)
        sums = [
            ATEN.embedding_dense_backward(
                at_least_float32(gradients[start : start + chunk]), ids[start : start + chunk], ctx.rows, -1, False
            )
            for start in range(0, len(ids), chunk)
        ]
        return None, torch.stack(sums).sum(0).to(ctx.dtype)
