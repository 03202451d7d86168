"""`charlstm tune`: the settings that suit a corpus, found by trying them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlstm.cli.commands.train import all_given, default_folder, openable
from charlstm.cli.options import ConfigOption, CorpusArgument, PresetOption, SetOption, command, dashed
from charlstm.config import TrainingConfig
from charlstm.console import Console, escape_controls
from charlstm.errors import CharlstmError, UsageError
from charlstm.settings import Setting, Settings, resolve
from charlstm.tuning.space import SPACE, Value, unset_space

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from charlstm.training.events import Event
    from charlstm.tuning.events import TrialEnded
    from charlstm.tuning.search import Search

FLAGS = [f"training.{f.name}" for f in fields(TrainingConfig) if f.name != "max_time"]
"""The training's settings with an option here; --time is the other one's."""

UNLESS_GIVEN = {
    "training.max_time": Setting("1m", "--time"),
    "training.epochs": Setting(1_000_000, "--epochs"),  # the time decides, however small the corpus
}

SHOWN = 5
"""Trials in the table of the best."""


@command(
    "model",
    "data",
    *FLAGS,
    short="corpus output trials time preset set_ document cell",
    examples=("charlstm tune book.txt --trials 30", "charlstm tune book.txt --time 5m --cell gru"),
)
def tune(
    corpus: CorpusArgument = None,
    *,
    console: Console,
    settings: Settings,
    trials: Annotated[int, typer.Option(help="How many to run now.", min=1, metavar="INT")] = 20,
    time: Annotated[
        str | None, typer.Option(help="How long each is trained. (default 1m)", metavar="TIME", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="The search's folder. (default runs/<corpus name>-tune)", show_default=False
        ),
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> int:
    """Search for good settings with many short training runs.

    Prints a file for train --config.

    Whatever you give is kept; what is searched of the rest is said first.

    The same command again goes on, and several at once share the work.
    """
    if "" in (corpus or []):
        raise UsageError("the name of a corpus must not be empty")
    check_optuna()
    given = UNLESS_GIVEN | all_given(console, preset, config, set_, settings)
    if time is not None:
        given["training.max_time"] = Setting(time, "--time")
    space = unset_space(given)
    if not space:
        raise UsageError(f"there is nothing to search: {', '.join(SPACE)} are all given")
    sources, stdin = openable(console, corpus or list(given.get("data.corpus", Setting((), "")).value))
    resolved = resolve(given | {"data.corpus": Setting(sources, "the corpus")})
    if not resolved.training.max_time:
        raise UsageError("--time must be more than 0: a trial has to end")

    from charlstm.cli.display import show_corpus
    from charlstm.cli.interrupt import Interrupt
    from charlstm.cli.reading import read, with_split
    from charlstm.runtime import configure_process

    text = read(console, resolved.data, stdin)
    resolved = with_split(resolved, given, text)
    show_corpus(console, text, resolved)
    configure_process()
    from charlstm.tuning.search import Search

    default = default_folder(sources)
    search = Search(output or default.with_name(f"{default.name}-tune"), text, resolved, given, space)
    show_plan(console, search, trials)
    with Interrupt(console, "ending this trial, which does not count") as interrupt:
        last = follow(console, search.trials(trials, interrupt))
    show_best(console, search)
    if interrupt():
        console.note(f"stopped after {search.ended} trials, which are kept; the same command goes on")
        return interrupt.status
    if not search.complete:
        raise CharlstmError(f"no trial came to its end: {last}")
    path = search.write_best()
    console.write(f"{path}\n".encode("utf-8", "surrogateescape"))
    return 0


def check_optuna() -> None:
    """Raises CharlstmError, with the command that installs it, where there is no Optuna."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise CharlstmError("tune needs Optuna, which is not installed", "pip install 'charlstm[tune]'") from None


def show_plan(console: Console, search: Search, trials: int) -> None:
    from charlstm.cli.display import duration

    seconds = search.config.training.max_time
    console.note("search   " + "; ".join(f"{short(key)} {values}" for key, values in search.space.items()))
    console.note(f"trials   {trials} of {duration(seconds)} each, in {escape_controls(str(search.folder))}")
    if search.ended:
        console.note(f"going on after {search.ended} trials")


def follow(console: Console, events: Iterable[Event | TrialEnded]) -> str:
    """Shows a bar for the trial that runs and a line for each that ended; gives the last line."""
    from charlstm.training.events import Stepped
    from charlstm.tuning.events import TrialEnded

    line = "none was begun"
    with console.progress() as bar:
        for event in events:
            if isinstance(event, TrialEnded):
                line = told(event)
                console.note(line)
            elif isinstance(event, Stepped) and console.can_animate:  # elsewhere a line for each trial is enough
                bar.update(event.fraction_done, f"loss {event.loss_nats:.3f}")
    return line


def told(tried: TrialEnded) -> str:
    """How a trial went, in a line."""
    from charlstm.cli.display import duration

    loss = "" if tried.loss_nats is None else f"{tried.loss_nats:.4f} nats/char, {tried.loss_nats / log(2):.4f} bpc"
    how = {
        "done": loss,
        "cut": f"{loss} after {tried.fraction_done:.0%}, cut",
        "failed": f"failed: {escape_controls(tried.reason)}",
    }
    settings = ", ".join(f"{short(key)} {shown(value)}" for key, value in tried.values.items())
    best = "  best so far" if tried.best else ""
    return f"trial {tried.number}  {how[tried.outcome]}  ({settings})  {duration(tried.seconds)}{best}"


def show_best(console: Console, search: Search) -> None:
    """A table of the best trials, and of what mattered, on stderr."""
    best = search.best(SHOWN)
    if not best:
        return
    rows = [["trial", "nats/char", "bpc", *map(short, search.space)], *(row(search, trial) for trial in best)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        console.note("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
    mattered = search.what_mattered()
    if mattered:
        console.note("mattered " + ", ".join(f"{short(key)} {share:.0%}" for key, share in mattered.items()))


def row(search: Search, trial: FrozenTrial) -> list[str]:
    loss = trial.value or 0.0
    return [
        str(trial.number),
        f"{loss:.4f}",
        f"{loss / log(2):.4f}",
        *(shown(value) for value in search.values_of(trial).values()),
    ]


def shown(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def short(key: str) -> str:
    """A setting as its flag has it."""
    return dashed(key.partition(".")[2])
