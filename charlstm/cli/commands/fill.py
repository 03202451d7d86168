"""`charlstm fill`: what could be in the gaps of a text."""

from __future__ import annotations

import os
from shlex import quote
from typing import Annotated

import typer

from charlstm.cli.escapes import advise_on_escapes
from charlstm.cli.options import JsonLinesOption, ModelOption, SampleSeedOption, UnknownOption, command
from charlstm.cli.prompt import read_prompt
from charlstm.console import Console
from charlstm.errors import UsageError
from charlstm.settings import Settings
from charlstm.storage.locate import find_model

EMPTY = ("", b"", b"\n", b"\r\n")


@command(
    short="text model gap any_ num seed as_json",
    examples=("charlstm fill 'To be, or ___ to be'", "charlstm fill -n 5 --any 8 'the _ sat on the mat'"),
)
def fill(
    text: Annotated[
        str | None,
        typer.Argument(help="The text with gaps. (default: stdin, if piped)", metavar="[TEXT]", show_default=False),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    model: ModelOption = None,
    gap: Annotated[str, typer.Option(help="The character that marks an unknown character.", metavar="CHARACTER")] = "_",
    any_: Annotated[
        int | None,
        typer.Option(
            "--any",
            help="Fill each gap with 1 to N characters, however many markers it has.",
            metavar="N",
            min=1,
            max=1000,
            show_default=False,
        ),
    ] = None,
    num: Annotated[
        int, typer.Option("-n", "--num", help="Number of fillings to write, best first.", metavar="N", min=1, max=1000)
    ] = 1,
    seed: SampleSeedOption = None,
    unknown: UnknownOption = "error",
    as_json: JsonLinesOption = False,
) -> None:
    """Fill the gaps of a text.

    A gap is one or more markers, each for one unknown character. All other characters stay as they are.
    """
    template = read_prompt(console, None if text == "-" else text, None, "text")
    advise_on_escapes(console, "--gap", gap)
    if template in EMPTY:
        raise UsageError("no text to fill", "charlstm fill 'To be, or ___ to be', or pipe one in")
    if text and gap not in text and os.path.isfile(text):  # noqa: PTH113 - a long text is no error here
        raise UsageError(f"the text {text!r} has no gap and is a file", f"to fill it: charlstm fill < {quote(text)}")
    path = find_model(model, console.environ)

    from charlstm.cli.actions.fill import write_fillings

    write_fillings(
        console, path, template, gap=gap, any_length=any_, num=num, seed=seed, unknown=unknown, as_json=as_json
    )
