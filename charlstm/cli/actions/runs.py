"""Show a table of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from rich.cells import cell_len

from charlstm.architecture import describe_architecture
from charlstm.cli.columns import shorten
from charlstm.cli.commands.runs import SortKey
from charlstm.cli.output import format_count, format_duration, write_json
from charlstm.console import Console, escape_controls
from charlstm.errors import CharlstmError, UsageError
from charlstm.tracking.overview import Overview, describe_run, find_runs

GAP = "  "
MIN_NAME_COLUMNS = 16
"""Columns of the name of a run or a corpus, below which other columns are left out instead."""

MIN_PASSES = 0.01
"""The smallest number of passes that is shown exactly."""

STATE_STYLES = {"training": "32", "stopped": "33", "damaged": "31", "ended": ""}
"""SGR codes of the colors on a terminal."""

SORT_KEYS: dict[SortKey, Callable[[Overview], Any]] = {
    "newest": lambda run: -run.modified,
    "loss": lambda run: inf if run.best_loss_nats is None else run.best_loss_nats,
    "name": lambda run: run.path.parts,
    "time": lambda run: -(run.seconds or 0.0),
    "size": lambda run: -run.parameters,
}


class Column(NamedTuple):
    """A column of the table: its heading, its text for a run, and how soon it is left out where space is short."""

    heading: str
    text: Callable[[Overview], str]
    to_right: bool = False
    priority: int = 0  # the highest is left out first; 0 never


def list_runs(console: Console, folder: Path, sort: SortKey, *, as_json: bool) -> None:
    """Write the runs in a folder as a table, or one JSON object per run. Raises UsageError if there is none."""
    if not folder.exists():
        raise UsageError(f"there is no folder {folder}", "train a run first: charlstm train corpus.txt")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "name the folder that has the runs in it")
    found = [overview for path in find_runs(folder) if (overview := describe_or_warn(console, path))]
    if not found:
        raise UsageError(f"the folder {folder} holds no run", "name the folder that has the runs in it")
    found.sort(key=lambda run: (SORT_KEYS[sort](run), run.path.parts))
    if as_json:
        for overview in found:
            write_json(console, overview.to_dict())
    else:
        write_table(console, found, folder)


def describe_or_warn(console: Console, path: Path) -> Overview | None:
    """Return the overview of a run. A damaged one, or one that was removed meanwhile, gets a warning."""
    try:
        overview = describe_run(path)
        if overview.damage:
            console.warn(f"{path} is damaged: {overview.damage}")
        return overview
    except (CharlstmError, OSError) as error:
        console.warn(f"{path} is left out: {error}")
        return None


def write_table(console: Console, runs: Sequence[Overview], folder: Path) -> None:
    """Write a table that fits the width of the terminal: all columns, as wide as they are, if stdout is none."""
    columns = make_columns(folder)
    cells = {column: [column.heading, *(column.text(run) for run in runs)] for column in columns}
    if console.stdout.isatty():
        cells = fit_columns(cells, console.width(console.stdout))
    styled = console.uses_color(console.stdout)
    widths = {column: max(map(cell_len, texts)) for column, texts in cells.items()}
    for k, run in enumerate([None, *runs]):
        row = []
        for column, texts in cells.items():
            pad = " " * (widths[column] - cell_len(texts[k]))
            text = color_cell(texts[k], column, run) if styled else texts[k]
            row.append(pad + text if column.to_right else text + pad)
        console.write(f"{GAP.join(row).rstrip()}\n".encode("utf-8", "surrogateescape"), escaped=True)


def color_cell(text: str, column: Column, run: Overview | None) -> str:
    """Return the text of a cell with its color: headings are dim, and so is the state of what needs attention."""
    code = "2" if run is None else STATE_STYLES[run.state] if column.heading == "state" else ""
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def make_columns(folder: Path) -> list[Column]:
    """Return all columns. The name of a run is its path in `folder`."""
    return [
        Column("run", lambda run: format_name(run, folder)),
        Column("state", describe_state),
        Column("model", lambda run: describe_architecture(run.config.model)),
        Column("weights", lambda run: format_count(run.parameters), to_right=True, priority=3),
        Column("corpus", lambda run: escape_controls(", ".join(run.corpus)), priority=4),
        Column("passes", lambda run: format_passes(run.passes), to_right=True, priority=2),
        Column("time", lambda run: "-" if run.seconds is None else format_duration(run.seconds), to_right=True),
        Column("chars/s", lambda run: format_count(run.chars_per_second or None), to_right=True, priority=5),
        Column("nats/char", lambda run: format_loss(run.best_loss_nats), to_right=True),
        Column("bpc", lambda run: format_loss(run.best_bpc), to_right=True, priority=1),
    ]


def format_name(run: Overview, folder: Path) -> str:
    """Return the path of a run in the folder, or the name of the folder if it is the run."""
    return escape_controls(str(run.path.relative_to(folder) if run.path != folder else run.path))


def describe_state(run: Overview) -> str:
    """Return the state, with the share of the training that is done if the run is to continue."""
    if run.state in ("ended", "damaged") or run.fraction_done is None:
        return run.state
    return f"{run.state} {run.fraction_done:.0%}"


def format_passes(passes: float | None) -> str:
    if passes is None:
        return "-"
    return f"<{MIN_PASSES}" if 0 < passes < MIN_PASSES else f"{passes:.3g}"


def format_loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def fit_columns(cells: dict[Column, list[str]], width: int) -> dict[Column, list[str]]:
    """Return the columns that fit, with the longest names cut short where that is not enough."""

    def total() -> int:
        return sum(max(map(cell_len, texts)) for texts in cells.values()) + len(GAP) * (len(cells) - 1)

    while total() > width:
        names = [column for column in cells if column.heading in ("run", "corpus")]
        longest = max(names, key=lambda column: max(map(cell_len, cells[column])))
        long = max(map(cell_len, cells[longest]))
        optional = [column for column in cells if column.priority]
        if long > MIN_NAME_COLUMNS:
            limit = max(long - (total() - width), MIN_NAME_COLUMNS)
            cells = {**cells, longest: [shorten(text, limit) for text in cells[longest]]}
        elif optional:
            least = max(optional, key=lambda column: column.priority)
            cells = {column: texts for column, texts in cells.items() if column != least}
        else:
            break
    return cells
