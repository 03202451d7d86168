"""`charlstm plot`: the curves of runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from charlstm.cli.options import PATH, command
from charlstm.console import Console
from charlstm.errors import UsageError
from charlstm.settings import Settings, suggest_name
from charlstm.tracking.quantities import CHOICES, AxisName

IMAGE_FORMATS = ("svg", "png", "pdf")


@dataclass(frozen=True)
class PlotRequest:
    """Which curves of which runs, and where they go: to the terminal unless one of the last five is given."""

    runs: list[Path]
    what: list[str]
    axis: AxisName
    output: Path | None
    """- is stdout."""
    tensorboard: Path | None
    as_csv: bool
    as_json: bool
    follow: bool


@command(
    short="runs what axis output as_csv as_json follow",
    examples=("charlstm plot runs/book --follow", "charlstm plot runs/* --x time -o losses.svg"),
)
def plot(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run folders, or names of runs under ./runs. (default: the newest of them)",
            metavar="[RUN ...]",
            click_type=PATH,
            show_default=False,
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    what: Annotated[
        str,
        typer.Option(
            "--what",
            help=f"What to draw, separated by commas: {', '.join(CHOICES)}. loss is validation and train. (default "
            "validation; of one run loss)",
            metavar="NAMES",
            show_default=False,
        ),
    ] = "",
    axis: Annotated[
        AxisName | None, typer.Option("--x", help="What to draw it over. (default step)", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Write an image instead, in the format that its name ends with: .svg, .png or .pdf; - is stdout, as "
            "SVG.",
            metavar="FILE",
            click_type=PATH,
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write the numbers as CSV instead.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the numbers as JSON instead: one object per logged line.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Draw again and again while one of the runs trains or is about to start.")
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            help="Write the metrics as files for TensorBoard instead, each run in its own folder in this one.",
            metavar="FOLDER",
            click_type=PATH,
        ),
    ] = None,
) -> None:
    """Draw how the loss of one or more runs fell.

    The chart is drawn on the terminal. Where a run has logged more than fits, a point is the mean of several. The
    first twentieth of each run may reach above the chart of a loss, and so may a run that ended within the first
    twentieth of the longest. Nothing in the run folders is changed, so the command can be used while they train.
    """
    outputs = {"-o": output, "--csv": as_csv, "--json": as_json, "--follow": follow, "--tensorboard": tensorboard}
    given = [name for name, value in outputs.items() if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} cannot be combined", "use one at a time")
    if tensorboard and what:
        raise UsageError("--tensorboard writes everything that is logged and cannot be combined with --what")
    if axis and (tensorboard or as_csv or as_json):
        raise UsageError(f"{given[0]} writes the values of every x axis and cannot be combined with --x")
    if output:
        check_image(console, output)
    names = [name.strip() for name in what.split(",")] if what else []
    for name in names:
        if name not in CHOICES:
            raise UsageError(f"--what: unknown quantity {name!r}", suggest_name(name, CHOICES))

    from charlstm.cli.actions.plot import plot_runs

    quantities = list(dict.fromkeys(quantity for name in names for quantity in CHOICES[name]))
    request = PlotRequest(runs or [], quantities, axis or "step", output, tensorboard, as_csv, as_json, follow)
    plot_runs(console, request)


def check_image(console: Console, path: Path) -> None:
    """Raise UsageError for a name of no image format, or if stdout is to have an image and is a terminal."""
    if str(path) == "-":
        if console.stdout.isatty():
            raise UsageError("the image is not for reading, and stdout is a terminal", "redirect stdout to a file")
    elif path.suffix.lower().removeprefix(".") not in IMAGE_FORMATS:
        raise UsageError(f"-o {path}: the format is unknown", "the name must end with .svg, .png or .pdf")
