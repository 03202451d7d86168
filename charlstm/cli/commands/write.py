"""`charlstm write`: an editor whose model continues the text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from charlstm.cli.options import PATH, ModelOption, SampleSeedOption, command
from charlstm.config import SamplingConfig
from charlstm.console import Console
from charlstm.errors import MissingExtraError, UsageError
from charlstm.settings import Settings, build_section, from_environment
from charlstm.storage.locate import find_model


@dataclass(frozen=True)
class WriteRequest:
    """What to edit, and how the model continues it."""

    file: Path | None
    sampling: SamplingConfig
    """Its length is that of the ghost text."""
    seed: int | None
    stops: list[str]
    unknown: Literal["skip", "replace"]


@command(
    "sampling.temperature",
    "sampling.top_k",
    "sampling.top_p",
    "sampling.min_p",
    "sampling.weights",
    short="file model temperature top_p length stop seed",
    examples=("charlstm write draft.txt", "charlstm write draft.txt -m runs/names -t 0.7 --stop $'\\n'"),
)
def write(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The text to edit, in UTF-8. (default: a new text, which is written to stdout at the end)",
            metavar="[FILE]",
            click_type=PATH,
            show_default=False,
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    model: ModelOption = None,
    length: Annotated[
        int, typer.Option("-l", "--length", help="Characters of ghost text.", metavar="N", min=1, max=1000)
    ] = 60,
    stop: Annotated[
        list[str] | None, typer.Option(help="End ghost text before this text. Repeatable.", metavar="TEXT")
    ] = None,
    seed: SampleSeedOption = None,
    unknown: Annotated[
        Literal["skip", "replace"],
        typer.Option(
            help="What the model reads for a character that it does not know: nothing (skip), or the unknown symbol or "
            "a space (replace)."
        ),
    ] = "replace",
) -> int:
    """Write a text in an editor whose model continues it.

    The continuation appears dimmed after the cursor. Right accepts a character of it, Tab a word; Down shows the next
    candidate and Up the one before. Characters that the model finds unlikely are underlined. Ctrl-S saves, Ctrl-Q
    quits.
    """
    if "" in (stop or []):
        raise UsageError("--stop must not be empty")
    if str(file) == "-":
        raise UsageError(
            "write edits a file, and - is not one", "without FILE, the text is written to stdout at the end"
        )
    environment = from_environment(console.environ, "sampling") | settings
    sampling = replace(build_section(SamplingConfig, environment, "sampling"), length=length)
    check_terminal(console)
    path = find_model(model, console.environ)
    check_library()

    from charlstm.cli.actions.write import edit_text

    return edit_text(console, path, WriteRequest(file, sampling, seed, stop or [], unknown), show_model=model is None)


def check_terminal(console: Console) -> None:
    """Raise UsageError unless keys can be read from a terminal, and text be drawn on one."""
    if console.stdin is None or not console.stdin.isatty():
        raise UsageError("write reads keys from a terminal, and stdin is not one", "charlstm sample continues a pipe")
    if not (console.stdout.isatty() or console.stderr.isatty()):
        raise UsageError("write draws on a terminal, and neither stdout nor stderr is one")
    if console.environ.get("TERM") == "dumb":
        raise UsageError("write moves the cursor, and the terminal cannot (TERM=dumb)")


def check_library() -> None:
    """Raise MissingExtraError, with the command that installs it, if the library for terminals is missing."""
    try:
        import prompt_toolkit  # noqa: F401
        import wcwidth  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("write needs prompt_toolkit", "write", error) from None
