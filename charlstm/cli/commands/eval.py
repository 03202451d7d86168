"""`charlstm eval`: how well a model predicts a text, and what it finds in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from charlstm.cli.gaps import bounds, share
from charlstm.cli.options import ModelOption, command
from charlstm.cli.texts import Part, count, given_text, own_part
from charlstm.config import AdaptationConfig, UnknownPolicy
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.settings import Settings, build_section, from_environment
from charlstm.storage.locate import find_model

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    from charlstm.data.split import Tokens
    from charlstm.storage.model import ModelFile

Errors = Literal["strict", "replace"]


@command(
    "adaptation",
    name="eval",
    short="files model part unknown dynamic gaps as_json",
    examples=("charlstm eval", "charlstm eval -m runs/mine other.txt --json"),
)
def eval_(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts to score; - is stdin. (default: a part of the corpus that the model was trained on)",
            metavar="[FILE ...]",
            show_default=False,
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    model: ModelOption = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of the files. (default: as the model's corpus)")
    ] = None,
    errors: Annotated[
        Errors | None,
        typer.Option(help="A byte that is not text. (default: as for the model's corpus)", show_default=False),
    ] = None,
    part: Annotated[
        Part | None, typer.Option(help="Which part of the model's own corpus. (default val)", show_default=False)
    ] = None,
    unknown: Annotated[UnknownPolicy, typer.Option(help="Characters that the model has never seen.")] = "error",
    per_char: Annotated[
        bool, typer.Option("--per-char", help="Write a JSON object for each character: its log-probability and rank.")
    ] = False,
    suspicious: Annotated[
        int | None,
        typer.Option(
            help="List the N least likely characters, given both sides if the model has them.",
            metavar="N",
            min=1,
            max=1_000_000,
            show_default=False,
        ),
    ] = None,
    gaps: Annotated[
        float | None,
        typer.Option(
            help="Hide this share of the text, gap by gap, and tell how many gaps are restored.",
            metavar="SHARE",
            callback=share,
            show_default=False,
        ),
    ] = None,
    gap_length: Annotated[
        str | None,
        typer.Option(
            help="Characters in each of these gaps, as 3 or 1..8. (default 1..8)", metavar="A..B", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of where these gaps are, and of what fills them. (default 1)", min=0, show_default=False
        ),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Also score the text with a model that goes on learning as it reads.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object; with --suspicious, one a line.")
    ] = False,
) -> None:
    """Measure how well a model predicts a text."""
    if part is not None and files:
        raise UsageError("--part is of the model's own corpus: give it or a FILE, not both")
    check_one({"--per-char": per_char, "--suspicious": suspicious, "--gaps": gaps, "--dynamic": dynamic})
    lengths = bounds("1..8" if gap_length is None else gap_length)
    if gaps is None and (gap_length is not None or seed is not None):
        raise UsageError(f"{'--seed' if gap_length is None else '--gap-length'} does nothing without --gaps SHARE")
    if suspicious and len(files or []) > 1:
        raise UsageError(f"--suspicious tells lines of one FILE, not of {len(files or [])}")
    if suspicious and unknown == "skip":
        raise UsageError(
            "--unknown skip would make --suspicious tell wrong columns", "--unknown replace keeps them right"
        )
    if settings and not dynamic:
        raise UsageError(f"{next(iter(settings.values())).where} does nothing without --dynamic")
    adaptation = build_section(
        AdaptationConfig, from_environment(console.environ, "adaptation") | settings, "adaptation"
    )
    path = find_model(model, console.environ)
    if model is None and (as_json or per_char or suspicious):  # the table names it
        console.note(escape_controls(str(path)), "dim")

    from charlstm.runtime import configure_process
    from charlstm.storage.model import ModelFile

    configure_process()
    file = ModelFile.load(path)
    ids, about = (
        given_text(console, file, files, unknown, encoding, errors) if files else own_part(console, file, part, path)
    )
    about = {"model": str(path), **about}
    if per_char:
        from charlstm.cli.commands.score import write_characters

        write_characters(console, file, ids)
    elif suspicious:
        from charlstm.cli.commands.score import write_suspicious

        write_suspicious(console, file, ids, suspicious, as_json)
    elif gaps:
        from charlstm.cli.gaps import gap_figures

        write(console, gap_figures(console, file, ids, gaps, lengths, 1 if seed is None else seed, about), as_json)
    else:
        write(console, all_figures(console, file, ids, about, adaptation if dynamic else None), as_json)


def check_one(wanted: dict[str, Any]) -> None:
    """Raises UsageError for more than one of the options that say what to write."""
    given = [name for name, value in wanted.items() if value]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} cannot both be given: each says what to write")


def all_figures(
    console: Console, file: ModelFile, ids: Tokens, about: dict[str, Any], adaptation: AdaptationConfig | None
) -> dict[str, Any]:
    """How well the model predicts the text; of a bidirectional one, from either end and from both sides."""
    from charlstm.evaluation.evaluate import evaluate
    from charlstm.model.loading import load_torch_model

    size = about.pop("bytes")
    found = evaluate(load_torch_model(file), ids, file.vocabulary.bos, size)
    assert found is not None
    ends = count(ids, file.vocabulary.end_of_document)
    dynamic = dynamic_figures(console, file, ids, size, adaptation) if adaptation else {}
    return {**about, **found.to_dict(), "end_symbols": ends, **dynamic}


def dynamic_figures(
    console: Console, file: ModelFile, ids: Tokens, size_bytes: int, config: AdaptationConfig
) -> dict[str, float]:
    """The figures of a text under a model that learns from it, those that differ from what `evaluate` gives."""
    from charlstm.evaluation.dynamic import score_dynamically
    from charlstm.evaluation.metrics import Metrics
    from charlstm.model.loading import load_language_model

    windows = score_dynamically(load_language_model(file), ids, file.vocabulary.bos, config)
    nats = -sum(float(log_p.sum(dtype="float64")) for log_p in watched(console, windows, len(ids)))
    found = Metrics(len(ids), size_bytes, nats).to_dict()
    return {f"dynamic_{name}": value for name, value in found.items() if name not in ("characters", "bytes")}


def watched(console: Console, windows: Iterator[NDArray[float32]], length: int) -> Iterator[NDArray[float32]]:
    """The windows of a text of this length, with their progress shown as they come."""
    read = 0
    with console.progress() as bar:
        for window in windows:
            yield window
            read += len(window)
            bar.update(read / length, f"adapting to {length:,} characters")


def write(console: Console, found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.write(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    else:
        seldom = {"characters_left_out", "characters_folded", "end_symbols"}  # not worth a row where there are none
        rows = {name: value for name, value in found.items() if value or name not in seldom}
        console.table({name.replace("_", " "): shown(value) for name, value in rows.items()})


def shown(value: Any) -> str:
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4f}"
        if isinstance(value, float)
        else escape_controls(value)
    )
