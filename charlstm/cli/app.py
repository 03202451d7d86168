"""The program: the table of commands, and the one place where errors become exit statuses."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Mapping, Sequence
from typing import ClassVar

import typer

import charlstm
from charlstm.cli.help import OptionRow
from charlstm.cli.lazy import Entry, LazyGroup, build_group
from charlstm.console import Console
from charlstm.errors import CharlstmError, OutputClosedError, is_out_of_memory

COMMANDS = "charlstm.cli.commands"


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"charlstm {charlstm.__version__}")
        raise typer.Exit


class Program(LazyGroup):
    """The `charlstm` command."""

    entries: ClassVar[Mapping[str, Entry]] = {
        "train": Entry(f"{COMMANDS}.train:train", "Train", "Train a model on text."),
        "tune": Entry(f"{COMMANDS}.tune:tune", "Train", "Search for good settings with many short training runs."),
        "corpus": Entry(
            f"{COMMANDS}.corpus:corpus", "Train", "Describe a corpus before training and suggest a preset."
        ),
        "sample": Entry(f"{COMMANDS}.sample:sample", "Write", "Write text with a trained model."),
        "fill": Entry(f"{COMMANDS}.fill:fill", "Write", "Fill the gaps of a text."),
        "eval": Entry(f"{COMMANDS}.eval:eval_", "Measure", "Measure how well a model predicts a text."),
        "score": Entry(
            f"{COMMANDS}.score:score", "Measure", "Print the log-probability of every character or line of a text."
        ),
        "show": Entry(f"{COMMANDS}.show:show", "Manage", "Show presets, recurrent cells or the cache."),
    }
    renamed: ClassVar[Mapping[str, str]] = {"cells": "charlstm show cells", "cache": "charlstm show cache"}
    options: ClassVar[Sequence[OptionRow]] = (
        (
            "version",
            bool,
            False,
            typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True),
        ),
    )


RENAMED_OPTIONS = {
    "--optimiser": "--optimizer",
    "--unit": "--level",
    "--tie": "--head tied",
    "--jsonl": "--json",
    "--per-char": "the command charlstm score",
    "--suspicious": "the command charlstm score --worst N",
}
"""Options of earlier versions, and what to use instead."""


def build_program() -> LazyGroup:
    """Return the `charlstm` command."""
    about = "Train character-level recurrent networks on text, and write with them."
    return build_group(Program, "charlstm", about, completion=True)


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Run a command line and return its exit status."""
    console = console or Console.from_process()
    try:
        status = build_program().main(args=arguments, prog_name="charlstm", standalone_mode=False, obj=console)
        console.flush()
        return int(status or 0)
    except (OutputClosedError, SystemExit):  # typer exits by the latter if its reader has closed the pipe
        return 0
    except KeyboardInterrupt:
        return 130
    except typer.TyperException as error:
        return report_usage(console, error)
    except Exception as error:
        return report_failure(console, error)


def report_usage(console: Console, error: typer.TyperException) -> int:
    """Print what typer found wrong with the command line, and return the exit status."""
    option = getattr(error, "option_name", None)
    if option in RENAMED_OPTIONS:
        console.error(f"the option {option} is now {RENAMED_OPTIONS[option]}")
    else:
        message = error.format_message()
        console.error(message[:1].lower() + message[1:])
    return error.exit_code


def report_failure(console: Console, error: Exception) -> int:
    """Print one sentence (with --debug, the traceback) and return the exit status."""
    if console.debug:
        console.print_line("".join(traceback.format_exception(error)), "error")
    elif isinstance(error, CharlstmError):
        console.error(str(error))
    elif is_out_of_memory(error):
        console.error("out of memory; lower --batch-size, --seq-len, --hidden or -n")
    elif isinstance(error, OSError):
        console.error(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "))
        return 2 if error.errno == errno.ENAMETOOLONG else 1
    else:
        console.error(f"internal error: {type(error).__name__}: {error}; run with --debug for the traceback")
    return error.exit_code if isinstance(error, CharlstmError) else 1
