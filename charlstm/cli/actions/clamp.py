"""`sample --clamp`: units that are fixed while text is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from charlstm.cli.texts import read_part
from charlstm.config import Direction
from charlstm.console import Console
from charlstm.errors import UsageError
from charlstm.inspection.intervention import target_values
from charlstm.sampling.network import Clamp
from charlstm.sampling.units import Target, Unit, make_clamps
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Ids

MAX_CHARACTERS = 10_000
"""Characters of the validation part that the mean and deviation of a unit are taken over."""


def read_clamps(
    console: Console, file: ModelFile, path: Path, assignments: Sequence[str], direction: Direction
) -> list[Clamp]:
    """Return the clamps for assignments such as "0.17=+2". Raises UsageError for one that makes no sense."""
    targets: dict[Unit, Target] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--clamp {assignment} is not UNIT=VALUE", "such as --clamp 0.17=+2")
        unit = Unit.parse(name, file.config.model)
        if unit in targets:
            raise UsageError(f"--clamp fixes unit {unit} twice")
        targets[unit] = Target.parse(value)

    def read_validation_part() -> Ids:
        tokens, _ = read_part(console, file, None, path)
        return tokens.span(0, min(len(tokens), MAX_CHARACTERS)).astype(np.int64)

    return make_clamps(target_values(file, targets, read_validation_part), direction)
