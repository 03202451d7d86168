"""The program: the table of commands, and the one place where errors become exit statuses."""

from __future__ import annotations

import errno
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import ClassVar

import typer

import charlstm
from charlstm.cli.help import OptionRow
from charlstm.cli.lazy import Entry, LazyGroup, build_group
from charlstm.console import Console
from charlstm.errors import CharlstmError, OutputClosedError, ReportedError, is_out_of_memory

COMMANDS = "charlstm.cli.commands"


def show_version(ctx: typer.Context, wanted: bool) -> None:
    """Print the version, with --debug also what a bug report needs."""
    if not wanted:
        return
    console: Console = ctx.obj
    if console.debug:
        from charlstm.cli.actions.version import write_details  # imports much; the version alone appears at once

        write_details(console)
    else:
        console.write(f"charlstm {charlstm.__version__}\n".encode())
    raise typer.Exit


def set_debug(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        ctx.obj.debug = True


class Program(LazyGroup):
    """The `charlstm` command."""

    examples = ("charlstm train book.txt --max-time 10m", "charlstm sample --prompt 'Once upon a time' | head")

    entries: ClassVar[Mapping[str, Entry]] = {
        "train": Entry(f"{COMMANDS}.train:train", "Train", "Train a model on text."),
        "tune": Entry(f"{COMMANDS}.tune:tune", "Train", "Search for good settings with many short training runs."),
        "corpus": Entry(
            f"{COMMANDS}.corpus:corpus", "Train", "Describe a corpus before training and suggest a preset."
        ),
        "sample": Entry(f"{COMMANDS}.sample:sample", "Write", "Write text with a trained model."),
        "fill": Entry(f"{COMMANDS}.fill:fill", "Write", "Fill the gaps of a text."),
        "write": Entry(f"{COMMANDS}.write:write", "Write", "Write a text in an editor whose model continues it."),
        "serve": Entry(f"{COMMANDS}.serve:serve", "Write", "Serve models over HTTP, with OpenAI's completions API."),
        "eval": Entry(f"{COMMANDS}.eval:eval_", "Measure", "Measure how well a model predicts a text."),
        "score": Entry(
            f"{COMMANDS}.score:score", "Measure", "Print the log-probability of every character or line of a text."
        ),
        "inspect": Entry(f"{COMMANDS}.inspect:inspect", "Measure", "Find the units of a model that follow the text."),
        "runs": Entry(f"{COMMANDS}.runs:runs", "Manage", "List runs with their size, progress and best loss."),
        "plot": Entry(f"{COMMANDS}.plot:plot", "Manage", "Draw how the loss of one or more runs fell."),
        "export": Entry(f"{COMMANDS}.export:export", "Manage", "Write a model in another format, with a model card."),
        "show": Entry(f"{COMMANDS}.show:show", "Manage", "Show presets, recurrent cells or the cache."),
    }
    renamed: ClassVar[Mapping[str, str]] = {"cells": "charlstm show cells", "cache": "charlstm show cache"}
    options: ClassVar[Sequence[OptionRow]] = (
        (
            "version",
            bool,
            False,
            typer.Option("--version", help="Show the version.", callback=show_version),
        ),
        (
            "debug",
            bool,
            False,
            typer.Option(
                "--debug",
                help="Show the traceback of an error; with --version, what a bug report needs.",
                callback=set_debug,
                is_eager=True,  # before --version, whichever comes first
            ),
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
    console.arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = build_program().main(args=arguments, prog_name="charlstm", standalone_mode=False, obj=console)
        console.flush()
        return int(status or 0)
    except OutputClosedError:
        return 0
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer exits with 1 if the reader of its help has gone
            return 0
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        return 130
    except typer.TyperException as error:
        return report_usage(console, error)
    except Exception as error:
        return report_failure(console, error)


UNEXPECTED, MISSING = "unexpected extra argument", "missing argument"

HINTS = {
    ("sample", UNEXPECTED): "name a model with -m and a prompt with -p",
    ("fill", UNEXPECTED): "quote the text: charlstm fill 'To be, or ___ to be'",
    ("serve", UNEXPECTED): "name each model with -m",
    ("score", UNEXPECTED): "it takes one file: cat them together",
    ("corpus", MISSING): "- reads stdin",
}
"""What to do about the arguments of a command, by its name and how typer's message begins."""


REWORDED = (
    (r"is not a valid int(eger)?( range)?$", "is not a whole number"),
    (r"is not a valid float( range)?$", "is not a number"),
    (r"is not in the range (\S+)<=x<=(\S+)$", r"is not from \1 to \2"),
    (r"is not in the range x>=(\S+)$", r"is less than \1"),
    (r"[.;] Did you mean (.*)\?$", r"; did you mean \1?"),
    (r" \((?:Did you mean|Possible options:|Possible commands:) (.*?)\??\)$", r"; did you mean \1?"),
    (r"^got unexpected extra argument(?:\(s\)|s)? \((.*)\)$", rf"{UNEXPECTED}: \1"),
)
"""Patterns of typer's messages, without a period at the end, and how they are written here."""


def reword(message: str) -> str:
    """Return a message of typer in the form that other errors have."""
    message = f"{message[:1].lower()}{message[1:]}".removesuffix(".")
    for pattern, replacement in REWORDED:
        message = re.sub(pattern, replacement, message, flags=re.DOTALL)
    return message


def report_usage(console: Console, error: typer.TyperException) -> int:
    """Print what typer found wrong with the command line, and return the exit status."""
    option = getattr(error, "option_name", None)
    if option in RENAMED_OPTIONS:
        console.error(f"the option {option} is now {RENAMED_OPTIONS[option]}")
    else:
        message = reword(error.format_message())
        command = ctx.info_name if (ctx := getattr(error, "ctx", None)) else None
        hint = next(
            (hint for (name, start), hint in HINTS.items() if name == command and message.startswith(start)), ""
        )
        console.error(f"{message}; {hint}" if hint else message)
    return error.exit_code


def report_failure(console: Console, error: Exception) -> int:
    """Print one sentence (with --debug, the traceback) and return the exit status."""
    if isinstance(error, ReportedError):
        return error.exit_code
    if console.debug:
        console.print_line("".join(traceback.format_exception(error)), "error")
    else:
        console.error(describe(error))
    return exit_status(error)


def exit_status(error: Exception) -> int:
    """Return the exit status of a command that ended with this error."""
    if isinstance(error, CharlstmError):
        return error.exit_code
    # A name that is too long was typed (a path, or text where a path belongs), so it is a usage error.
    is_usage = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
    return 2 if is_usage else 1


def describe(error: Exception) -> str:
    """Return one sentence: what went wrong and, if known, what to do."""
    if isinstance(error, CharlstmError):
        return str(error)
    if is_out_of_memory(error):
        return "out of memory; lower --batch-size, --seq-len, --hidden or -n"
    if isinstance(error, OSError):
        return f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")
    return f"internal error: {type(error).__name__}: {error}; run with --debug for the traceback"
