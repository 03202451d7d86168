"""Sums of rows by their ids, compiled by numba: the gradient of a look-up on a CPU."""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from charlstm.model.kernels.arithmetic import NumbaArray, load_float, store_float
from charlstm.model.kernels.team import SharedWork, TeamFunction, call_in_team, run_team
from charlstm.storage.jit import compile_cached

GROUP = 64
"""Columns that one thread sums at least: some lines of the cache."""


def sum_rows(rows: Tensor, ids: Tensor, count: int) -> Tensor:
    """Return the sums [count, N] of the rows [n, N] with the same id, in float32 and in the order of the rows."""
    sums = torch.zeros(count, rows.shape[1])
    run_team(TeamFunction(add_rows, add_rows_team), SharedWork(1, rows.shape[1], GROUP, sums.nbytes), sums, rows, ids)
    return sums


@compile_cached
def add_rows(part: Any, sums: NumbaArray, rows: NumbaArray, ids: NumbaArray) -> None:
    width, units = rows.shape[1], part.end - part.start
    for n in range(len(ids)):
        at, to = n * width + part.start, ids[n] * width + part.start
        for k in range(units):
            store_float(sums, to + k, load_float(sums, to + k) + load_float(rows, at + k))


@compile_cached
def add_rows_team(team: Any, arguments: Any) -> None:
    call_in_team(add_rows, team, arguments)
