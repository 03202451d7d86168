"""`inspect --states` and `--labels`: the state of a model after each line of a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.cli.commands.inspect import InspectRequest
from charlstm.cli.findings import format_table, write_lines
from charlstm.cli.output import write_json
from charlstm.console import Console
from charlstm.errors import UsageError
from charlstm.inspection.lines import LineState, line_states
from charlstm.inspection.probes import probe_labels
from charlstm.inspection.text import ReadText
from charlstm.inspection.trace import Trace, directions
from charlstm.sampling.units import Unit
from charlstm.storage.files import write_atomically
from charlstm.storage.model import ModelFile


def write_states(console: Console, file: ModelFile, text: ReadText, recorded: Trace, request: InspectRequest) -> None:
    """Write the state of each line."""
    assert request.states is not None
    lines = read_lines(text, recorded, request)
    if request.states == "-":
        for record in map(line_record, count(1), lines):
            write_json(console, record)
        return
    path = Path(request.states)
    if path.suffix == ".npy":
        content = BytesIO()
        np.save(content, np.stack([line.state for line in lines]))
        data = content.getvalue()
    else:
        records = map(line_record, count(1), lines)
        data = b"".join(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for record in records)
    write_atomically(path, data)


def read_lines(text: ReadText, recorded: Trace, request: InspectRequest) -> Iterator[LineState]:
    """Return the state of each line. Raises UsageError for a quantity that the cell does not have."""
    quantity = request.quantity or recorded.state[-1]
    if quantity not in recorded.quantities:
        raise UsageError(f"the cell of this model has no {quantity!r}", f"it has {', '.join(recorded.quantities)}")
    return line_states(text.characters, text.select(recorded), quantity, request.pool)


def write_probes(
    console: Console,
    file: ModelFile,
    text: ReadText,
    recorded: Trace,
    record: dict[str, Any],
    request: InspectRequest,
) -> None:
    """Write how well the labels of the lines can be predicted."""
    assert request.labels is not None
    config = file.config.model
    names = [
        str(Unit(layer, number, direction))
        for direction in directions(config)
        for layer in range(config.layers)
        for number in range(config.hidden)
    ]
    lines = list(read_lines(text, recorded, request))
    result = probe_labels(lines, read_labels(request.labels), names, request.seed)
    probes = [probe.to_dict() for probe in result.probes]
    if request.as_json:
        write_json(console, {**record, "lines": len(lines), "held_out_lines": result.held_out, "probes": probes})
        return
    console.note(f"accuracy on {result.held_out:,} held-out lines of {len(lines):,}", "dim")
    rows = [("predicted from", "accuracy", "features used")]
    rows += [(each["features"], f"{each['accuracy']:.3f}", f"{each['used']:,}") for each in probes]
    write_lines(console, format_table(rows))


def read_labels(path: Path) -> list[str]:
    """Return the lines of a file. Raises UsageError if it cannot be read."""
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the labels in {path}: {describe(error)}") from error


def describe(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"


def line_record(number: int, line: LineState) -> dict[str, Any]:
    return {"line": number, "text": line.text, "state": [round(value, 6) for value in line.state.tolist()]}
