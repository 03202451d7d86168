"""`charlstm eval`: how well a model predicts a text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from charlstm.cli.options import (
    SOURCE,
    AverageOption,
    EncodingOption,
    ErrorsOption,
    JsonOption,
    ModelOption,
    UnknownOption,
    command,
)
from charlstm.cli.stdin import check_text_source
from charlstm.config import AdaptationConfig, UnknownPolicy
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.settings import Settings, build_section, from_environment
from charlstm.storage.locate import check_exists, find_model, name_model

MAX_GAP_LENGTH = 100
MAX_GAP_SHARE = 0.5
"""Gaps need text between them."""


By = Literal["detector", "reset", "ngram"]
"""What the loss is divided by."""


@dataclass(frozen=True)
class TextSource:
    """The text to evaluate on: files, or a part of the model's own corpus."""

    files: list[str]
    part: str | None
    unknown: UnknownPolicy
    encoding: str | None
    errors: str | None


@dataclass(frozen=True)
class GapOptions:
    """`--gaps`: the share of the text to hide, the lengths of the gaps, and the seed."""

    share: float
    shortest: int
    longest: int
    seed: int


def check_share(value: float | None) -> float | None:
    """Raise typer.BadParameter unless this share of a text can be hidden."""
    if value is None or 0 < value <= MAX_GAP_SHARE:
        return value
    raise typer.BadParameter(f"{value} is not a share above 0 and up to {MAX_GAP_SHARE}.")


@command(
    "adaptation",
    name="eval",
    short="files model part unknown dynamic gaps by as_json",
    examples=("charlstm eval", "charlstm eval -m runs/mine other.txt --json"),
)
def eval_(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts to evaluate on; - is stdin. (default: the validation part of the model's own corpus)",
            metavar="[FILE ...]",
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
        typer.Option(help="Part of the model's own corpus to evaluate on. (default val)", show_default=False),
    ] = None,
    unknown: UnknownOption = "error",
    encoding: EncodingOption = None,
    errors: ErrorsOption = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Add the metrics of a model that keeps learning as it reads.")
    ] = False,
    average: AverageOption = None,
    mix: Annotated[
        bool,
        typer.Option(
            "--mix",
            help="Add the metrics of the model mixed with an n-gram model that learns the text as it is read; with "
            "--dynamic, both learn.",
        ),
    ] = False,
    gaps: Annotated[
        float | None,
        typer.Option(
            help="Hide this share of the text, gap by gap, and add how many gaps the model fills correctly.",
            metavar="SHARE",
            callback=check_share,
            show_default=False,
        ),
    ] = None,
    gap_length: Annotated[
        str | None,
        typer.Option(
            help="Characters per gap for --gaps, as 3 or 1..8. (default 1..8)", metavar="A..B", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the places of these gaps and of what fills them. (default 1)",
            metavar="N",
            min=0,
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        By | None,
        typer.Option(
            help="Divide the loss by properties of the text (detector) or by characters since the state was reset "
            "(reset), or count the errors that n-grams avoid (ngram).",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how well a model predicts a text.

    The result is one set of metrics; --dynamic, --average, --mix and --gaps add to it.
    """
    if settings and not dynamic:
        raise UsageError(f"{next(iter(settings.values())).where} has no effect without --dynamic")
    added = {"--dynamic": dynamic, "--average": average is not None, "--mix": mix, "--gaps": gaps is not None}
    check_text_source(console, bool(files), part, unknown, encoding, errors)
    if by and (other := next((name for name, on in added.items() if on), "")):
        raise UsageError(f"--by shows the loss itself: give it without {other}")
    gap_options = parse_gap_options(gaps, gap_length, seed)
    given = from_environment(console.environ, "adaptation") | settings
    adaptation = build_section(AdaptationConfig, given, "adaptation")
    for each in files or []:
        check_exists(each)
    path = find_model(model, console.environ)
    if model is None and as_json:  # the table names the model
        console.note(escape_controls(name_model(path)), "dim")

    source = TextSource(files or [], part, unknown, encoding, errors)
    if by:
        from charlstm.cli.actions.eval_by import write_losses

        write_losses(console, path, source, by, as_json=as_json)
        return

    from charlstm.cli.actions.eval import evaluate_model, write_metrics

    averaged = None if average is None else find_model(average, console.environ)
    metrics = evaluate_model(console, path, source, gap_options, adaptation if dynamic else None, averaged, mix=mix)
    write_metrics(console, metrics, as_json)


def parse_gap_options(share: float | None, lengths: str | None, seed: int | None) -> GapOptions | None:
    """Return the options of --gaps, or None without it. Raises UsageError."""
    shortest, longest = parse_lengths("1..8" if lengths is None else lengths)
    if share is None:
        if lengths is not None or seed is not None:
            raise UsageError(f"{'--seed' if lengths is None else '--gap-length'} has no effect without --gaps SHARE")
        return None
    return GapOptions(share, shortest, longest, 1 if seed is None else seed)


def parse_lengths(text: str) -> tuple[int, int]:
    """Return the bounds of "1..8", or of "3". Raises UsageError."""
    match = re.fullmatch(r"(\d{1,4})(?:\.\.(\d{1,4}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= MAX_GAP_LENGTH:
        raise UsageError(
            f"--gap-length must be a length as 3, or two as 1..8, from 1 to {MAX_GAP_LENGTH}, not {text!r}"
        )
    return first, last
