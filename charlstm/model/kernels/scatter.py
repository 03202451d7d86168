"""Sums of rows by their ids, compiled: the gradient of a look-up on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.team import SharedWork, run_team

GROUP = 64
"""Columns that one thread sums at least: some lines of the cache."""


def sum_rows(rows: Tensor, ids: Tensor, count: int) -> Tensor:
    """Return the sums [count, N] of the rows [n, N] with the same id, in float32 and in the order of the rows."""
    sums = torch.zeros(count, rows.shape[1])
    run_team("add_rows", SharedWork(1, rows.shape[1], GROUP, sums.nbytes), sums, rows, ids)
    return sums
