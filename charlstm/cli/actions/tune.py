"""Run a search, show its trials and write its best settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from math import log
from typing import TYPE_CHECKING

from charlstm.cli.actions.train_plan import choose_folder, resolve_sources
from charlstm.cli.commands.tune import TuneRequest
from charlstm.cli.display import note_compilation, show_corpus
from charlstm.cli.interrupt import Interrupt
from charlstm.cli.options import with_dashes
from charlstm.cli.output import format_duration, write_json
from charlstm.cli.texts import fit_to_text, read_with_progress, with_default_split
from charlstm.console import Console, escape_controls
from charlstm.errors import CharlstmError, MissingExtraError, UsageError
from charlstm.runtime import retain_freed_memory
from charlstm.settings import Setting, resolve, updated
from charlstm.storage.files import check_folder
from charlstm.training.events import Event, Stepped
from charlstm.tuning.events import TrialFinished
from charlstm.tuning.space import Value, get_setting
from charlstm.wording import quantity

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from charlstm.tuning.search import Search

BEST_SHOWN = 5
"""Trials in the table of the best."""


def run_search(console: Console, request: TuneRequest, save: Callable[[], bool]) -> int:
    """Run trials and write the path of the best settings. Returns the exit status.

    save: called during trials. Whenever it returns True, a note is printed.

    Raises CharlstmError without Optuna, or if no trial was completed.
    """
    check_optuna()
    named = request.corpus or list(resolve(request.given).data.corpus)
    sources, stdin = resolve_sources(console, named)
    config = resolve(request.given | {"data.corpus": Setting(sources, "the corpus")})
    if not config.training.max_time:
        raise UsageError("--time must be more than 0: a trial has to end")
    if not config.validates:
        split = request.given["data.split"]
        raise UsageError(
            f"tune compares settings by their validation loss, and {split.where} leaves no validation part"
        )
    default = choose_folder(sources)
    folder = request.output or default.with_name(f"{default.name}-tune")
    check_folder(folder, "-o")
    corpus = read_with_progress(console, config.data, stdin)
    config = with_default_split(config, request.given, corpus)
    show_corpus(console, corpus, config)
    fitted = fit_to_text(console, config, request.given, corpus)
    config, given = updated(config, fitted, "the text"), request.given | fitted
    retain_freed_memory()
    from charlstm.tuning.search import Search

    note_compilation(console, config)
    with closing(Search(folder, corpus, config, given, request.storage)) as search:
        return follow_search(console, search, request, save)


def follow_search(console: Console, search: Search, request: TuneRequest, save: Callable[[], bool]) -> int:
    """Run the trials of a request and write the path of the best settings. Returns the exit status."""
    show_search(console, search, request.trials)
    with Interrupt(console, "ending this trial, which does not count") as interrupt:
        last = follow_trials(console, search.run_trials(request.trials, interrupt), request.as_json, save)
    show_best(console, search)
    if interrupt():
        completed = quantity(search.finished_trials, "completed trial")
        console.note(f"stopped after {completed}; the same command continues the search")
        return interrupt.status
    if not search.completed:
        raise CharlstmError(f"no trial was completed: {last}")
    path = search.write_best()
    if place := search.place_of_best():
        console.note(f"the model of the best trial is in {escape_controls(place)}")
    if request.as_json:
        best = search.best_trials(1)[0]
        write_json(
            console,
            {
                "event": "finished",
                "config": str(path),
                "trials": search.finished_trials,
                "best_trial": best.number,
                "best_loss_nats": search.loss(best),
            },
        )
    else:
        console.write(f"{path}\n".encode("utf-8", "surrogateescape"))
    return 0


def check_optuna() -> None:
    """Raise MissingExtraError, with the command that installs it, if Optuna or a library that it needs is missing."""
    try:
        import optuna  # noqa: F401
        import scipy  # type: ignore[import-untyped]  # noqa: F401 - Optuna's sampler imports it
    except ImportError as error:
        raise MissingExtraError("tune needs Optuna and SciPy", "tune", error) from None


def show_search(console: Console, search: Search, trials: int) -> None:
    """Print the searched settings, the folder, and how many trials it already has."""
    seconds = search.config.training.max_time
    plan = {key: get_setting(search.config, key) for key in search.space}
    settings = ", ".join(f"{option_name(key)} {format_setting(value)}" for key, value in plan.items())
    console.note(f"plan     for {format_duration(seconds)} of training, the first trial: {settings}")
    console.note(
        "space    around it: " + "; ".join(f"{option_name(key)} {values}" for key, values in search.space.items())
    )
    console.note(f"trials   {trials} of {format_duration(seconds)} each in {escape_controls(str(search.folder))}")
    if search.finished_trials:
        console.note(f"continuing after {quantity(search.finished_trials, 'trial')}")


def follow_trials(
    console: Console, events: Iterable[Event | TrialFinished], as_json: bool, save: Callable[[], bool]
) -> str:
    """Show a progress bar for each trial and a line at its end. Returns the last line."""
    line = "none was started"
    with console.progress() as bar:
        for event in events:
            if save():
                console.note("every finished trial is saved, and this one will be when it ends")
            if isinstance(event, TrialFinished):
                line = describe_trial(event)
                console.note(line)
                if as_json:
                    write_trial(console, event)
            elif isinstance(event, Stepped) and console.can_animate:  # elsewhere a line per trial is enough
                bar.update(event.fraction_done, f"loss {event.loss_nats:.3f}")
    return line


def write_trial(console: Console, trial: TrialFinished) -> None:
    """Write a trial to stdout as JSON."""
    record = {
        "event": "trial",
        "number": trial.number,
        "repeats": trial.repeats,
        "outcome": trial.outcome,
        "loss_nats": trial.loss_nats,
        "fraction_done": trial.fraction_done,
        "settings": trial.values,
        "seconds": round(trial.seconds, 3),
        "best": trial.best,
    }
    write_json(console, record | ({"reason": trial.reason} if trial.reason else {}))


def describe_trial(trial: TrialFinished) -> str:
    """Return the result of a trial in a line."""
    loss = "" if trial.loss_nats is None else f"{trial.loss_nats:.4f} nats/char, {trial.loss_nats / log(2):.4f} bpc"
    result = {
        "done": loss,
        "pruned": f"{loss} after {trial.fraction_done:.0%}, stopped early",
        "failed": f"failed: {escape_controls(trial.reason)}",
    }
    settings = ", ".join(f"{option_name(key)} {format_setting(value)}" for key, value in trial.values.items())
    best = "  best so far" if trial.best else ""
    again = "" if trial.repeats is None else f" (trial {trial.repeats} with another seed)"
    return f"trial {trial.number}{again}  {result[trial.outcome]}  ({settings})  {format_duration(trial.seconds)}{best}"


def show_best(console: Console, search: Search) -> None:
    """Print a table of the best trials and the importance of each setting on stderr."""
    best = search.best_trials(BEST_SHOWN)
    if not best:
        return
    header = ["trial", "nats/char", "bpc", *map(option_name, search.space)]
    rows = [header, *(format_trial_row(search, trial) for trial in best)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        console.note("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
    seconds = format_duration(search.config.training.max_time)
    console.note(f"chosen for trainings of {seconds}; longer ones may need other settings")
    importances = search.parameter_importances()
    if importances:
        shares = ", ".join(f"{option_name(key)} {share:.0%}" for key, share in importances.items())
        console.note(f"importance of each setting: {shares}")


def format_trial_row(search: Search, trial: FrozenTrial) -> list[str]:
    loss = search.loss(trial)
    values = search.searched_values(trial).values()
    return [str(trial.number), f"{loss:.4f}", f"{loss / log(2):.4f}", *map(format_setting, values)]


def format_setting(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def option_name(key: str) -> str:
    """Return a setting's key as its option has it, without the dashes."""
    return with_dashes(key.partition(".")[2])
