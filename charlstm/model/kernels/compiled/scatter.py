"""Sums of rows by their ids."""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from typing import Any

from charlstm.model.kernels.compiled.arithmetic import NumbaArray, load_float, store_float
from charlstm.storage.jit import compile_inline


@compile_inline
def add_rows(part: Any, sums: NumbaArray, rows: NumbaArray, ids: NumbaArray) -> None:
    width, units = rows.shape[1], part.end - part.start
    for n in range(len(ids)):
        at, to = n * width + part.start, ids[n] * width + part.start
        for k in range(units):
            store_float(sums, to + k, load_float(sums, to + k) + load_float(rows, at + k))
