"""`charlstm score`: the log-probability of every character or line of a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from charlstm.cli.models import find_models
from charlstm.cli.options import SOURCE, EncodingOption, ErrorsOption, JsonLinesOption, UnknownOption, command
from charlstm.config import UnknownPolicy
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.settings import Settings
from charlstm.storage.locate import check_exists


@dataclass(frozen=True)
class ScoreRequest:
    """What to score, and which records to write."""

    file: str
    models: dict[str, Path]
    """Model files by name."""
    by_line: bool
    worst: int | None
    unknown: UnknownPolicy
    encoding: str | None
    errors: str | None
    as_json: bool


@command(
    short="file models worst by unknown as_json",
    examples=(
        "charlstm score draft.txt --worst 20",
        "charlstm score -m en=runs/en -m fr=runs/fr < lines.txt | cut -f 3,5",
    ),
)
def score(
    file: Annotated[
        str | None,
        typer.Argument(
            help="The text to score. (default: stdin, if piped)",
            metavar="[FILE]",
            click_type=SOURCE,
            show_default=False,
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            help="Run folder, model file or builtin; several with names are compared line by line. "
            "(default $CHARLSTM_MODEL, else the newest run under ./runs)",
            metavar="[NAME=]MODEL",
            click_type=SOURCE,
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        Literal["character", "line"] | None,
        typer.Option(
            help="Write a record per character or per line. (default character; line for several models)",
            show_default=False,
        ),
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option(
            help="Write only the N least likely characters (or lines), the least likely first.",
            metavar="N",
            min=1,
            max=1_000_000,
            show_default=False,
        ),
    ] = None,
    unknown: UnknownOption = "error",
    encoding: EncodingOption = None,
    errors: ErrorsOption = None,
    as_json: JsonLinesOption = False,
) -> None:
    """Print the log-probability of every character or line of a text.

    The output is tab-separated, with a header. Offsets count characters from 0, lines and columns from 1. A
    bidirectional model also scores each character given the text on both sides. Tabs, newlines, other control
    characters and backslashes in the text are escaped.

    With several models each record is a line of the text, with the name of the model that gives it the highest
    likelihood and how many nats the second best model is behind. A model trained with --document line scores each line
    on its own.
    """
    named = models or []
    by_line = by == "line" or len(named) > 1
    if len(named) > 1 and by == "character":
        raise UsageError("several models are compared line by line, not --by character")
    if len(named) > 1 and worst:
        raise UsageError("--worst ranks the scores of one model; give one -m")
    source = "-" if file is None else file
    if source == "-" and not console.piped:
        raise UsageError("no text to score", "name a FILE, or pipe one in")
    check_exists(source)
    if Path(source).is_dir():
        raise UsageError(f"score reads one file, and {source} is a folder", "cat its files together")
    found = find_models(named, console)
    if not named:
        console.note(escape_controls(next(iter(found))), "dim")

    from charlstm.cli.actions.score import write_scores

    write_scores(console, ScoreRequest(source, found, by_line, worst, unknown, encoding, errors, as_json))
