"""`charlstm export`: a model in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from charlstm.cli.options import PATH, JsonOption, ModelOption, command
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.settings import Settings
from charlstm.storage.locate import find_model, name_model

ExportDirection = Literal["forward", "backward", "both"]


@dataclass(frozen=True)
class ExportRequest:
    """The model, the file or folder of each format, and what the ONNX file has in it."""

    model: Path
    targets: dict[str, Path]
    """By the name of the format. - is stdout."""
    sequence: bool
    direction: ExportDirection
    precision: Literal["fp32", "fp16", "int8"]
    as_json: bool


@command(
    short="model html onnx pytorch model_file weights as_json",
    examples=(
        "charlstm export --html page.html",
        "charlstm export -m runs/mine --onnx model.onnx --weights int8",
    ),
)
def export(
    *,
    console: Console,
    settings: Settings,
    model: ModelOption = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="Write a page that writes text in a web browser, offline; - is stdout.",
            metavar="FILE",
            click_type=PATH,
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(help="Write an ONNX file, which onnxruntime runs; - is stdout.", metavar="FILE", click_type=PATH),
    ] = None,
    sequence: Annotated[
        bool,
        typer.Option("--sequence", help="The ONNX file reads a whole text at once, not one character at a time."),
    ] = False,
    direction: Annotated[
        ExportDirection,
        typer.Option(help="Direction of a bidirectional model in the page or the ONNX file; both needs --sequence."),
    ] = "forward",
    weights: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(
            help="Weights in the ONNX file or the model file, which has no int8: fp16 and int8 take a half and a "
            "quarter of the space, and what the model loses by them is printed."
        ),
    ] = "fp32",
    pytorch: Annotated[
        Path | None,
        typer.Option(
            help="Write a folder with the weights and a model.py that loads them into torch.nn without charlstm.",
            metavar="FOLDER",
            click_type=PATH,
        ),
    ] = None,
    model_file: Annotated[
        Path | None,
        typer.Option(
            "--charlstm",
            help="Write a model file for charlstm, without the paths that files of version 0.1.0 have; - is stdout.",
            metavar="FILE",
            click_type=PATH,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model in another format, with a model card.

    Prints the paths of the files. The card, README.md in the folder of each file except a page, has what --about and
    --license of train say, the metrics, the settings and the command that trains such a model. No file has a path of
    this machine in it.

    How much of a sample is copied from the training text is measured and printed, if that text is available.
    """
    named = {"html": html, "onnx": onnx, "pytorch": pytorch, "charlstm": model_file}
    targets = {name: path for name, path in named.items() if path is not None}
    if not targets:
        raise UsageError("no format is named", "give --html FILE, --onnx FILE, --pytorch FOLDER or --charlstm FILE")
    if onnx is None and sequence:
        raise UsageError("--sequence is an option of --onnx FILE", "add it")
    if onnx is None and model_file is None and weights != "fp32":
        raise UsageError("--weights is an option of --onnx FILE and --charlstm FILE", "add one")
    if onnx is None and html is None and direction != "forward":
        raise UsageError("--direction is an option of --html FILE and --onnx FILE", "add one")
    check_stdout(console, targets, as_json)
    found = find_model(model, console.environ)
    if model is None:
        console.note(escape_controls(name_model(found)), "dim")

    from charlstm.cli.actions.export import run_export

    run_export(console, ExportRequest(found, targets, sequence, direction, weights, as_json))


def check_stdout(console: Console, targets: dict[str, Path], as_json: bool) -> None:
    """Raise UsageError if stdout is to have a file and something else, or is a terminal."""
    to_stdout = [name for name, path in targets.items() if str(path) == "-"]
    if not to_stdout:
        return
    if "pytorch" in to_stdout:
        raise UsageError("--pytorch writes a folder, and - is stdout")
    if len(to_stdout) > 1:
        raise UsageError("two files cannot both be written to stdout", "name one of them")
    if as_json:
        raise UsageError("--json and a file cannot both be written to stdout", "name a file")
    if console.stdout.isatty():
        raise UsageError("the file is not for reading, and stdout is a terminal", "redirect stdout to a file")
