"""`charlstm inspect`: which units of a model follow the text, and what they are worth."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from charlstm.cli.options import (
    PATH,
    SOURCE,
    EncodingOption,
    ErrorsOption,
    JsonOption,
    ModelOption,
    UnknownOption,
    command,
)
from charlstm.cli.stdin import check_text_source
from charlstm.config import UnknownPolicy
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.settings import Settings
from charlstm.storage.locate import check_exists, find_model, name_model

DEFAULT_LENGTH = 10_000
"""Characters of the model's own validation part that are read."""

MAX_PREDICTIONS = 10


@dataclass(frozen=True)
class InspectRequest:
    """The text to read, and what to show."""

    file: str | None
    part: str | None
    length: int | None
    patterns: list[str]
    unit: str | None
    quantity: str | None
    predictions: int
    gates: bool
    plot: Path | None
    ablate: bool
    like: tuple[int, int] | None
    states: str | None
    labels: Path | None
    pool: Literal["last", "mean"]
    html: Path | None
    all_units: bool
    seed: int
    unknown: UnknownPolicy
    encoding: str | None
    errors: str | None
    as_json: bool


@command(
    short="file model length detect unit predictions gates ablate html as_json",
    examples=(
        "charlstm inspect --ablate --detect 'https?://[^ ]*'",
        "charlstm inspect book.txt --unit 0.17 --predictions 3 --color always | less -R",
    ),
)
def inspect(
    file: Annotated[
        str | None,
        typer.Argument(
            help="The text to read; - is stdin. (default: the validation part of the model's own corpus)",
            metavar="[FILE]",
            click_type=SOURCE,
            show_default=False,
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    model: ModelOption = None,
    part: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(help="Part of the model's own corpus to read. (default val)", show_default=False),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            "-l",
            "--length",
            help="Characters to read from the beginning of the text. "
            f"(default all of a FILE, {DEFAULT_LENGTH:,} of the model's own corpus)",
            metavar="N",
            min=1,
            show_default=False,
        ),
    ] = None,
    detect: Annotated[
        list[str] | None,
        typer.Option(
            "--detect",
            help="Also look for units that follow the matches of a regular expression. Repeatable.",
            metavar="REGEX",
            show_default=False,
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help="Show one unit over the text: its layer and number, both counted from 0, as 1.37.",
            metavar="UNIT",
            show_default=False,
        ),
    ] = None,
    quantity: Annotated[
        str | None,
        typer.Option(
            help="State or gate that --unit shows: cell, hidden, input, forget, candidate, output, reset, update. "
            "(default the cell state; hidden for cells without one)",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        int,
        typer.Option(
            help="With --unit, the N most likely next characters under each character. (default 0)",
            metavar="N",
            min=0,
            max=MAX_PREDICTIONS,
            show_default=False,
        ),
    ] = 0,
    gates: Annotated[
        bool, typer.Option("--gates", help="Show how far the gates of each layer are open instead.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="With --gates, also draw how often each unit is saturated, as SVG.",
            metavar="FILE",
            click_type=PATH,
            show_default=False,
        ),
    ] = None,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Also fix each unit of the table (or that of --unit) at its mean, and show what that costs.",
        ),
    ] = False,
    like: Annotated[
        str | None,
        typer.Option(
            help="Show the places most like the characters from A (counted from 0) to before B: where the same units "
            "are on.",
            metavar="A:B",
            show_default=False,
        ),
    ] = None,
    states: Annotated[
        str | None,
        typer.Option(
            help="Write the state after each line to a .npy or .jsonl file; - is JSON Lines on stdout.",
            metavar="FILE",
            click_type=SOURCE,
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Show how well the state after each line predicts its label; the file has one label per line.",
            metavar="FILE",
            click_type=PATH,
            show_default=False,
        ),
    ] = None,
    pool: Annotated[
        Literal["last", "mean"],
        typer.Option(help="With --states and --labels, the last state of a line or the mean over it."),
    ] = "last",
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="Also write a page for a web browser: the text in the colors of any unit.",
            metavar="FILE",
            click_type=PATH,
            show_default=False,
        ),
    ] = None,
    all_units: Annotated[
        bool, typer.Option("--all", help="With --html, the gates of all units, not only of the best 64.")
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Seed of the noise levels and of the random units.", metavar="N", min=0)
    ] = 1,
    unknown: UnknownOption = "error",
    encoding: EncodingOption = None,
    errors: ErrorsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the units of a model that follow the text.

    For each property of the text, such as the column or whether a quotation is open, the table names the unit that
    follows it best: chosen on the first half of the text, and with its correlation (r) or area under the ROC curve
    (auc) on the second half. Next to it are what the last character alone achieves, and the level that a search finds
    in noise.
    """
    check_modes(
        {"--unit": unit, "--gates": gates, "--like": like, "--states": states, "--labels": labels}, {"--detect": detect}
    )
    if ablate and (gates or like or states or labels):
        raise UsageError("--ablate fixes the units of the table or that of --unit")
    if quantity and not (unit or states or labels):
        raise UsageError("--quantity has no effect without --unit, --states or --labels")
    if plot and not gates:
        raise UsageError("--plot has no effect without --gates")
    if predictions and not unit:
        raise UsageError("--predictions has no effect without --unit")
    if pool != "last" and not (states or labels):
        raise UsageError("--pool has no effect without --states or --labels")
    if states and not states.endswith(("-", ".npy", ".jsonl")):
        raise UsageError(f"--states {states} must end in .npy or .jsonl, or be -")
    if html and (unit or gates or like or states or labels):
        raise UsageError("--html writes the table: give it without --unit, --gates, --like, --states and --labels")
    if all_units and not html:
        raise UsageError("--all has no effect without --html")
    span = parse_span(like)
    check_text_source(console, file is not None, part, unknown, encoding, errors)
    if file is not None:
        check_exists(file)
    path = find_model(model, console.environ)
    if model is None:
        console.note(escape_controls(name_model(path)), "dim")

    from charlstm.cli.actions.inspect import inspect_model

    request = InspectRequest(
        file=file,
        part=part,
        length=length,
        patterns=detect or [],
        unit=unit,
        quantity=quantity,
        predictions=predictions,
        gates=gates,
        plot=plot,
        ablate=ablate,
        like=span,
        states=states,
        labels=labels,
        pool=pool,
        html=html,
        all_units=all_units,
        seed=seed,
        unknown=unknown,
        encoding=encoding,
        errors=errors,
        as_json=as_json,
    )
    inspect_model(console, path, request)


def check_modes(modes: dict[str, object], of_the_table: dict[str, object]) -> None:
    """Raise UsageError for two things to show, and for an option of the table together with one of them."""
    chosen = [option for option, value in modes.items() if value]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} cannot be combined")
    for option, value in of_the_table.items():
        if value and chosen:
            raise UsageError(f"{option} has no effect with {chosen[0]}")


def parse_span(text: str | None) -> tuple[int, int] | None:
    """Return the bounds of "120:160". Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UsageError(f"--like must be two places as 120:160, counted from 0, not {text!r}")
    return int(match[1]), int(match[2])
