"""Compiles the functions that are called from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from charlstm.model.kernels.compiled.scatter import add_rows
from charlstm.model.kernels.compiled.sequences import (
    elman_backward,
    elman_forward,
    gru_backward,
    gru_forward,
    lstm_backward,
    lstm_forward,
)
from charlstm.model.kernels.compiled.softmax import softmax_gradient_rows
from charlstm.model.kernels.compiled.team import call_in_team, number_reader
from charlstm.model.kernels.native import ArrayKind
from charlstm.model.kernels.team import IN_TEAM, Part, Team
from charlstm.storage.jit import compile_to_machine_code, make_reader
from charlstm.storage.machine_code import MachineCode

TEAM_FUNCTIONS = {
    "lstm_forward": lstm_forward,
    "lstm_backward": lstm_backward,
    "gru_forward": gru_forward,
    "gru_backward": gru_backward,
    "elman_forward": elman_forward,
    "elman_backward": elman_backward,
    "add_rows": add_rows,
}
"""They take a `Part` and arrays. With `IN_TEAM` after its name, a function is called by every thread of a `Team`."""


def compile_entry(name: str, kinds: Sequence[ArrayKind]) -> MachineCode:
    """Compile a function for these kinds of arrays.

    It takes the address of its numbers, after which its arrays follow as `make_reader` reads them.
    """
    read_arrays = make_reader(kinds)
    if name == "softmax_gradient_rows":
        return compile_to_machine_code(make_plain_entry(softmax_gradient_rows, read_arrays))
    if name.endswith(IN_TEAM):
        return compile_to_machine_code(make_team_entry(TEAM_FUNCTIONS[name.removesuffix(IN_TEAM)], read_arrays))
    return compile_to_machine_code(make_part_entry(TEAM_FUNCTIONS[name], read_arrays))


def make_plain_entry(function: Any, read_arrays: Any) -> Any:
    def entry(address: int) -> None:
        function(*read_arrays(address))

    return entry


def make_part_entry(function: Any, read_arrays: Any) -> Any:
    read_part, size = number_reader(Part), np.uintp(8 * len(Part._fields))

    def entry(address: int) -> None:
        function(read_part(address), *read_arrays(address + size))

    return entry


def make_team_entry(function: Any, read_arrays: Any) -> Any:
    read_team, size = number_reader(Team), np.uintp(8 * len(Team._fields))

    def entry(address: int) -> None:
        call_in_team(function, read_team(address), read_arrays(address + size))

    return entry
