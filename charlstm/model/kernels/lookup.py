"""Rows of a table, looked up; the errors on a row are summed in float32, whatever the precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding

from charlstm.model.kernels.sequence import at_least_float32, merge_time_and_batch

ATEN: Any = torch.ops.aten
CHUNK_ROWS = 1024
"""Looked up rows whose errors are in float32 at a time: a few MB, which stay in the processor's cache."""


class Lookup(torch.autograd.Function):
    """The rows of a table [V, N] at ids [T, B], as [T, B, N].

    A row is looked up a thousand times in a batch, and the error on it is the sum of as many: half precision would
    lose most of them. Only that sum is in float32, not the errors as a whole.
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
        errors, ids = merge_time_and_batch(dy), ids.flatten()
        piece = max(CHUNK_ROWS, ctx.rows)
        sums = [
            ATEN.embedding_dense_backward(
                at_least_float32(errors[at : at + piece]), ids[at : at + piece], ctx.rows, -1, False
            )
            for at in range(0, len(ids), piece)
        ]
        return None, torch.stack(sums).sum(0).to(ctx.dtype)
