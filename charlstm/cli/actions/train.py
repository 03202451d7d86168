"""Plan a training run, run it and show its progress."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import fields
from time import monotonic
from typing import TYPE_CHECKING

from charlstm import presets
from charlstm.cli.actions.lr_range import run_lr_range_test
from charlstm.cli.actions.train_events import note_length, note_slowness, write_events
from charlstm.cli.actions.train_plan import Plan, check_output, continue_run, from_first, plan_new, plan_resumed
from charlstm.cli.commands.train import TrainRequest
from charlstm.cli.display import Display, note_compilation, show_plan
from charlstm.cli.event_file import check_tensorboard, follow_metrics, open_event_file
from charlstm.cli.interrupt import Interrupt
from charlstm.cli.output import write_json
from charlstm.cli.shared_input import move_pipe_to_stdin
from charlstm.cli.texts import fit_to_text, read_with_progress, with_default_split
from charlstm.config import Config, ModelConfig
from charlstm.console import Console, escape_controls
from charlstm.data.batches import Batches
from charlstm.data.corpus import Corpus
from charlstm.rendezvous import START_VARIABLE, Rendezvous
from charlstm.runtime import bind_to_cores, end_with_parent, retain_freed_memory
from charlstm.settings import resolve, updated
from charlstm.training.events import Event, Finished
from charlstm.wording import quantity

if TYPE_CHECKING:
    from charlstm.model.ranks import Ranks
    from charlstm.training.auto_config import Candidate, ConfigChoice

SIGNAL_COPIES_SECONDS = 1.0
"""Seconds in which two signals to one of several processes count as one: a launcher passes on what it gets."""

STOPPED_BY_ANOTHER_RANK = 130
"""Exit status of a process that was stopped by a signal to another one: that of Ctrl-C."""

CANDIDATES_SHOWN = 12
"""Sizes of model in the table of `--dry-run`."""


def run_train(console: Console, request: TrainRequest, save: Callable[[], bool]) -> int:
    """Train, or print the settings or a learning rate. Returns the exit status.

    save: called between steps. Whenever it returns True, the run is saved and training continues.
    """
    if request.tensorboard:
        check_tensorboard("train --tensorboard")
    rendezvous = Rendezvous.from_environ(console.environ)
    if rendezvous is None and request.processes > 1:
        from charlstm.training.launch import launch

        threads = resolve(request.given).training.threads
        arguments = move_pipe_to_stdin(console.arguments, request.corpus)
        return launch(arguments, request.processes, threads, console.started_at)
    if rendezvous is None or rendezvous.size == 1:
        return train_on_rank(console, request, save, None)
    console.take_rank(rendezvous.rank)
    console.started_at = float(console.environ.get(START_VARIABLE) or console.started_at)
    end_with_parent()
    retain_freed_memory()
    bind_to_cores(rendezvous.local_rank, rendezvous.local_size)
    from charlstm.model.ranks import Ranks

    with Ranks.join(rendezvous) as ranks:
        if rendezvous.restarts:
            request = ranks.from_first(lambda: continue_run(request))
        return train_on_rank(console, request, save, ranks)


def train_on_rank(console: Console, request: TrainRequest, save: Callable[[], bool], ranks: Ranks | None) -> int:
    """Do what `run_train` does, together with the other ranks if there are any."""
    plan = plan_resumed(request, ranks) if request.resume else plan_new(console, request, ranks)
    if not (request.resume or request.dry_run or request.find_lr):
        from_first(ranks, lambda: check_output(plan.folder, overwrite=request.overwrite))

    def read() -> Corpus:
        return read_with_progress(console, plan.config.data, plan.stdin, max_time=plan.config.training.max_time)

    corpus = ranks.on_all(read) if ranks else read()
    if not request.resume:
        plan = plan._replace(config=with_default_split(plan.config, request.given, corpus))
    if request.preset:
        console.note(f"preset   {request.preset}: {presets.describe_preset(request.preset)}")
    if not request.resume:
        plan = fit_settings(console, plan, corpus, request, ranks)
    show_plan(console, corpus, plan.config, plan.chosen_settings(request.given))
    if request.dry_run:
        check_size(corpus, plan.config)
        write_config(console, plan.config, request.as_json)
        return 0
    if request.find_lr:
        return run_lr_range_test(console, corpus, plan.config, as_json=request.as_json)
    return run_plan(console, plan, corpus, request, save, ranks)


def fit_settings(console: Console, plan: Plan, corpus: Corpus, request: TrainRequest, ranks: Ranks | None) -> Plan:
    """Return the plan with the settings the user left open chosen for a time limit or a small text."""
    if plan.config.training.max_time and not request.preset:
        return fit_to_time(console, plan, corpus, request, ranks)
    fitted = fit_to_text(console, plan.config, request.given, corpus)
    return plan._replace(config=updated(plan.config, fitted, "the text"))


def fit_to_time(console: Console, plan: Plan, corpus: Corpus, request: TrainRequest, ranks: Ranks | None) -> Plan:
    """Return the plan with the settings the user left open chosen for the text, the time and this machine."""
    retain_freed_memory()
    from charlstm.training.auto_config import choose_config

    note_compilation(console, plan.config)
    shape = {f"model.{f.name}" for f in fields(ModelConfig)} if plan.init_from else set()
    choice = choose_config(corpus, plan.config, {*request.given, *shape}, monotonic() - console.started_at, ranks)
    if request.dry_run:
        show_candidates(console, choice)
    console.note(f"settings {choice}")
    return plan._replace(config=choice.best.config, choice=choice)


def show_candidates(console: Console, choice: ConfigChoice) -> None:
    """Print the sizes of model that were considered, the best first, with the losses predicted for them."""
    header = ("layers x units", "streams", "lr", "characters/s", "passes", "predicted nats/char")
    rows = [header, *map(describe_candidate, choice.candidates[:CANDIDATES_SHOWN])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        console.note("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


def describe_candidate(candidate: Candidate) -> tuple[str, ...]:
    model, training = candidate.config.model, candidate.config.training
    return (
        f"{model.layers} x {model.hidden}",
        f"{training.batch_size} x {training.seq_len}",
        f"{training.lr:.2g}",
        f"{'' if candidate.measured else 'about '}{candidate.chars_per_second:,.0f}",
        f"{candidate.epochs:.2g}",
        f"{candidate.loss_nats:.3f}",
    )


def check_size(corpus: Corpus, config: Config) -> None:
    """Raise CharlstmError if the corpus is too small for the settings."""
    Batches.from_config(corpus.split(config.data.split).part("train"), config)


def write_config(console: Console, config: Config, as_json: bool) -> None:
    if as_json:
        write_json(console, config.to_dict())
    else:
        console.write(config.to_toml().encode())


def run_plan(
    console: Console,
    plan: Plan,
    corpus: Corpus,
    request: TrainRequest,
    save: Callable[[], bool],
    ranks: Ranks | None,
) -> int:
    """Train and write the path of the run folder (with --json, the events). Returns the exit status."""
    retain_freed_memory()
    from charlstm.training.run import LOG_EVERY, run_training

    note_compilation(console, plan.config)
    event_file = open_event_file(plan.folder, plan.config) if request.tensorboard and not console.rank else None
    copies_within = SIGNAL_COPIES_SECONDS if ranks else 0.0
    with Interrupt(console, copies_within=copies_within) as interrupt, plan.folder.advise_resuming():
        events: Iterable[Event] = run_training(
            corpus,
            plan.config,
            plan.folder,
            resume=plan.resume,
            overwrite=plan.overwrite,
            init_from=plan.init_from,
            stop=interrupt,
            save=save,
            started_at=console.started_at,
            ranks=ranks,
        )
        if plan.choice:
            events = note_slowness(console, events, plan.choice.best.chars_per_second)
        elif not plan.config.training.max_time:
            events = note_length(console, events)
        if event_file:
            events = follow_metrics(events, event_file, plan.folder, LOG_EVERY)
        if request.as_json:
            events = write_events(console, events, plan.folder.path)
        chosen = plan.chosen_settings(request.given)
        display = Display(console, corpus, plan.config, plan.folder, request.samples, chosen, event_file)
        finished = display.follow(events)
    show_end(console, plan, finished)
    if finished.reason == "stopped":
        return interrupt.status if interrupt.signal else STOPPED_BY_ANOTHER_RANK
    if not request.as_json:
        console.write(f"{plan.folder.path}\n".encode("utf-8", "surrogateescape"))
    return 0


def show_end(console: Console, plan: Plan, finished: Finished) -> None:
    """Print why a run ended early, or that there was nothing left to do."""
    if finished.reason == "stopped":
        path = escape_controls(shlex.quote(plan.folder.path.as_posix()))
        saved = f"saved in {path}; resume with: charlstm train --resume -o {path}"
        console.note(f"stopped at step {finished.step:,}; {saved if finished.step else 'nothing was trained yet'}")
    elif finished.reason == "patience":
        validations = quantity(plan.config.training.patience, "validation")
        console.note(f"stopped at step {finished.step:,}: {validations} without a better loss")
    elif plan.resume and not finished.steps:
        console.note(
            f"the run was already complete at step {finished.step:,}; continue it with a higher --epochs or --max-time"
        )
