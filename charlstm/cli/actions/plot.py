"""Draw the curves of runs on the terminal, or write them as an image, as CSV, as JSON or for TensorBoard."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from charlstm.cli.commands.plot import PlotRequest
from charlstm.cli.event_file import check_tensorboard
from charlstm.cli.output import write_json
from charlstm.cli.plot_view import AXIS_LABELS, draw_panels
from charlstm.cli.ticks import choose_count_ticks, choose_duration_ticks
from charlstm.console import Console, escape_controls
from charlstm.errors import MissingExtraError, UsageError
from charlstm.storage.files import check_folder, write_atomically
from charlstm.storage.locate import find_newest_run, locate_run
from charlstm.tracking.curves import Curve, RunLog, group_panels, list_points, smooth, write_csv
from charlstm.tracking.quantities import QUANTITIES, AxisName

REDRAW_SECONDS = 2.0
"""Seconds between two looks at the metrics with --follow."""

START_SECONDS = 20.0
"""How long --follow waits for a run to appear: a training that was just started loads torch first."""

START_POLL_SECONDS = 0.5
"""Seconds between two looks for it."""

MIN_FOLLOW_ROWS = 12
"""Rows that --follow needs."""


def plot_runs(console: Console, request: PlotRequest) -> None:
    """Do what `charlstm plot` was asked for. Raises UsageError for a folder without a run or without what to draw."""
    if request.tensorboard:
        check_folder(request.tensorboard, "--tensorboard")
    logs = wait_for_runs(console, request) if request.follow else open_logs(request.runs)
    if not request.runs:
        console.note(f"run {escape_controls(', '.join(str(log.path) for log in logs.values()))}")
    quantities = [QUANTITIES[name] for name in request.what or QUANTITIES]
    if request.as_csv:
        for line in write_csv(logs, quantities):
            console.write(line.encode("utf-8", "surrogateescape"))
    elif request.as_json:
        for record in list_points(logs, quantities):
            write_json(console, {key: value for key, value in record.items() if value is not None})
    elif request.tensorboard:
        convert(console, logs, request.tensorboard)
    elif request.output:
        write_image(console, read_curves(logs, request), request.axis, request.output)
    elif request.follow:
        follow_runs(console, logs, request)
    else:
        rows = draw_panels(console, read_curves(logs, request), request.axis)
        write_rows(console, rows)


def open_logs(paths: Sequence[Path]) -> dict[str, RunLog]:
    """Return the runs, by the shortest names that distinguish them; of none, the newest under ./runs."""
    found = map(locate_run, paths or [find_newest_run("name a run folder")])
    folders = {Path(os.path.abspath(path)): path for path in found}  # noqa: PTH100 - no .. and no link followed
    shared = os.path.commonpath([folder.parent for folder in folders])
    return {escape_controls(str(folder.relative_to(shared))): RunLog(path) for folder, path in folders.items()}


def read_curves(logs: Mapping[str, RunLog], request: PlotRequest) -> list[Curve]:
    """Return the curves to draw. Raises UsageError if none of the runs has logged any of it."""
    curves = read_all(
        logs, request.what or (["validation", "train"] if len(logs) == 1 else ["validation"]), request.axis
    )
    if not curves and not request.what:
        curves = read_all(logs, ["train"], request.axis)  # runs without a validation part
    if not curves:
        what = " or ".join(QUANTITIES[name].label for name in request.what or ["train"])
        raise UsageError(f"{', '.join(logs)} has logged no {what} yet", "a line is logged every 50 steps")
    return curves


def read_all(logs: Mapping[str, RunLog], what: Sequence[str], axis: AxisName) -> list[Curve]:
    """Return the curves of these quantities that have a point. Training losses are smoothed."""
    found = (log.read_curve(QUANTITIES[name], axis, run) for name in what for run, log in logs.items())
    return [smooth(curve) if curve.quantity == QUANTITIES["train"] else curve for curve in found if len(curve.xs)]


def wait_for_runs(console: Console, request: PlotRequest) -> dict[str, RunLog]:
    """Return the runs once there is something to draw: a training that was just started has not logged anything.

    Raises UsageError without a terminal, or if a run does not appear, or has nothing to draw and is not in training.
    """
    if not console.stdout.isatty() or console.environ.get("TERM") == "dumb":
        raise UsageError("--follow draws on a terminal, and stdout is none", "leave it out to draw once")
    deadline, is_waiting = time.monotonic() + START_SECONDS, False
    while True:
        can_appear = time.monotonic() < deadline
        try:
            logs = open_logs(request.runs)
            can_appear = any(log.is_training for log in logs.values())
            read_curves(logs, request)
            return logs
        except UsageError as error:
            if not can_appear:
                raise
            if not is_waiting:
                console.note(f"{escape_controls(error.message)}; waiting for it")
            is_waiting = True
        time.sleep(START_POLL_SECONDS)


def follow_runs(console: Console, logs: Mapping[str, RunLog], request: PlotRequest) -> None:
    """Draw the runs over what was drawn before, until none of them trains."""
    drawn = 0
    while True:
        trains = any(log.is_training for log in logs.values())  # before what it logged last is read
        for log in logs.values():
            log.reader.update()
        height = os.get_terminal_size(console.stdout.fileno()).lines
        if height < MIN_FOLLOW_ROWS:
            raise UsageError(f"--follow needs {MIN_FOLLOW_ROWS} rows and the terminal has {height}", "make it higher")
        rows = draw_panels(console, read_curves(logs, request), request.axis, height - 1)[: height - 1]
        back = f"\x1b[{drawn}A\x1b[J" if drawn else ""
        write_rows(console, rows, back)
        drawn = len(rows)
        if not trains:
            break
        time.sleep(REDRAW_SECONDS)
    console.note("no run is in training")


def write_rows(console: Console, rows: Sequence[str], before: str = "") -> None:
    text = before + "".join(f"{row}\n" for row in rows)
    console.write(text.encode("utf-8", "surrogateescape"), escaped=True)


def write_image(console: Console, curves: Sequence[Curve], axis: AxisName, path: Path) -> None:
    """Write the curves as an image; to stdout as SVG.

    Raises CharlstmError without matplotlib, or if the file cannot be written.
    """
    try:
        from charlstm.tracking.figure import draw_figure
    except ImportError as error:
        raise MissingExtraError("plot -o needs matplotlib", "plot", error) from None
    ticks = choose_duration_ticks if axis == "time" else choose_count_ticks
    to_stdout = str(path) == "-"
    image_format = "svg" if to_stdout else path.suffix.lower().removeprefix(".")
    image = draw_figure(group_panels(curves), AXIS_LABELS[axis], image_format, ticks)
    if to_stdout:
        console.write(image)
    else:
        write_atomically(path, image)
        console.write(f"{path}\n".encode("utf-8", "surrogateescape"))


def convert(console: Console, logs: Mapping[str, RunLog], folder: Path) -> None:
    """Write the metrics of runs for TensorBoard. Raises CharlstmError without it, or if that fails."""
    check_tensorboard("plot --tensorboard")
    from charlstm.tracking.tensorboard import EventFile

    for name, log in logs.items():
        EventFile(folder / name, log.header.config).rewrite(log.entries)
    console.write(f"{folder}\n".encode("utf-8", "surrogateescape"))
