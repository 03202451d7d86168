"""`charlstm runs`: a table of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from charlstm.cli.options import PATH, JsonLinesOption, command
from charlstm.console import Console
from charlstm.settings import Settings

SortKey = Literal["newest", "loss", "name", "time", "size"]


@command(short="folder sort as_json", examples=("charlstm runs", "charlstm runs experiments --sort loss"))
def runs(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder with runs, at any depth. (default runs)",
            metavar="[FOLDER]",
            click_type=PATH,
            show_default=False,
        ),
    ] = Path("runs"),
    *,
    console: Console,
    settings: Settings,
    sort: Annotated[
        SortKey,
        typer.Option(
            help="What comes first: the run that changed last, the lowest loss, the first name, the longest time or "
            "the most parameters."
        ),
    ] = "newest",
    as_json: JsonLinesOption = False,
) -> None:
    """List runs with their size, progress and best loss.

    A run is in training while a process has its lock. It has ended if it reached its --epochs, its --max-time or the
    end of its --patience; train --resume continues one that was stopped. It is damaged if a file of it was cut
    short or is garbage. Nothing in the folders is changed, so the command can be used at any time.
    """
    from charlstm.cli.actions.runs import list_runs

    list_runs(console, folder, sort, as_json=as_json)
