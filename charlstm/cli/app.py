"""The program: every error becomes an exit status here, and only here."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import charlstm
from charlstm.cli.commands import cache, cells, corpus, fill, sample, train, tune
from charlstm.cli.commands import eval as eval_command
from charlstm.cli.options import command
from charlstm.console import Console
from charlstm.errors import CharlstmError, OutputClosedError, is_out_of_memory

app = typer.Typer(
    name="charlstm",
    help="Train character-level recurrent networks on your own text, and let them write.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
command(app, "model", "data", "training")(train.train)
command(app, "sampling", "adaptation")(sample.sample)
command(app)(fill.fill)
command(app, "model", "data", *tune.FLAGS)(tune.tune)
command(app, "adaptation")(eval_command.eval_)
command(app, *corpus.FLAGS)(corpus.corpus)
command(app, "model.layers", "model.hidden")(cells.cells)
command(app)(cache.cache)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"charlstm {charlstm.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Train character-level recurrent networks on your own text, and let them write."""


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Runs a command line and gives its exit status."""
    console = console or Console.from_process()
    try:
        status = app(args=arguments, prog_name="charlstm", standalone_mode=False, obj=console)
        console.flush()
        return int(status or 0)
    except (OutputClosedError, SystemExit):  # typer leaves by the latter if nobody reads its help
        return 0
    except KeyboardInterrupt:
        return 130
    except typer.TyperException as error:
        return usage(console, error)
    except Exception as error:
        return failure(console, error)


def usage(console: Console, error: typer.TyperException) -> int:
    """What typer found wrong with the command line, in its words."""
    message = error.format_message()
    if message:  # none, where the help was shown in its place
        console.error(message[:1].lower() + message[1:])
    return error.exit_code


def failure(console: Console, error: Exception) -> int:
    """One sentence, and the status that goes with it."""
    if console.debug:
        console.print_line("".join(traceback.format_exception(error)), "error")
    elif isinstance(error, CharlstmError):
        console.error(str(error))
    elif is_out_of_memory(error):
        console.error("there is not enough memory for this; lower --batch-size, --seq-len, --hidden or -n")
    elif isinstance(error, OSError):
        console.error(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "))
        return 2 if error.errno == errno.ENAMETOOLONG else 1
    else:
        console.error(f"this should not have happened: {type(error).__name__}: {error}; --debug shows where")
    return error.exit_code if isinstance(error, CharlstmError) else 1
