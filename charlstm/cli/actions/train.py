"""Plan a training run, run it and show its progress."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

from charlstm import presets
from charlstm.cli.actions.lr_range import run_lr_range_test
from charlstm.cli.commands.train import TrainRequest
from charlstm.cli.display import Display, note_compilation, show_plan
from charlstm.cli.event_file import check_tensorboard, follow_metrics, open_event_file
from charlstm.cli.interrupt import Interrupt
from charlstm.cli.output import format_duration, write_json
from charlstm.cli.shared_input import move_pipe_to_stdin, share_spool
from charlstm.cli.stdin import check_unread_input
from charlstm.cli.texts import fit_to_text, read_with_progress, with_default_split
from charlstm.config import SECTIONS, Config, ModelConfig
from charlstm.console import Console, escape_controls
from charlstm.data.batches import Batches
from charlstm.data.corpus import Corpus, derive_run_name
from charlstm.errors import UsageError
from charlstm.rendezvous import START_VARIABLE, Rendezvous
from charlstm.runtime import bind_to_cores, end_with_parent, parent_started_at, retain_freed_memory
from charlstm.settings import Setting, Settings, check_resumable, from_dict, resolve, updated
from charlstm.storage.files import check_folder
from charlstm.storage.locate import STATE, STDIN, find_model, find_newest_run
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.spool import Spool
from charlstm.training.events import BestEvaluated, Event, Finished, RolledBack, Saved, Started, Stepped, Validated
from charlstm.wording import quantity

if TYPE_CHECKING:
    from charlstm.model.ranks import Ranks
    from charlstm.training.auto_config import Candidate, ConfigChoice

Planned = TypeVar("Planned")

SIGNAL_COPIES_SECONDS = 1.0
"""Seconds in which two signals to one of several processes count as one: a launcher passes on what it gets."""

STOPPED_BY_ANOTHER_RANK = 130
"""Exit status of a process that was stopped by a signal to another one: that of Ctrl-C."""

CANDIDATES_SHOWN = 12
"""Sizes of model in the table of `--dry-run`."""

LENGTH_CHECK_STEPS = 20
"""Steps after which the time of a run without a limit is estimated."""

LONG_RUN_SECONDS = 24 * 3600.0
"""A run that takes longer says so."""

SLOWNESS = 0.7
"""Share of the planned speed below which training is much slower than planned: a size of model earlier."""

SLOWNESS_CHECK = 0.1
"""Share of the training after which its speed is compared with the plan."""


class Plan(NamedTuple):
    """A training run: its settings, its folder and where it starts."""

    config: Config
    folder: RunFolder
    stdin: BinaryIO | Spool | None  # what the corpus "-" is read from
    resume: bool = False
    overwrite: bool = False
    init_from: ModelFile | None = None
    choice: ConfigChoice | None = None  # what the settings for a time limit are based on, if they were chosen

    def chosen_settings(self, given: Settings) -> set[str]:
        """Return the settings that were chosen for a time limit. Of a resumed run they may be all."""
        if not (self.choice or (self.resume and self.config.training.max_time)):
            return set()
        return {f"{name}.{f.name}" for name, section in SECTIONS.items() for f in fields(section)} - set(given)


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


def check_output(folder: RunFolder, *, overwrite: bool) -> None:
    """Raise UsageError or CharlstmError for a folder that a new run cannot be written to."""
    check_folder(folder.path, "-o")
    folder.check_unused(overwrite=overwrite)


def from_first(ranks: Ranks | None, compute: Callable[[], Planned]) -> Planned:
    """Return what the first rank computes; without other ranks, what this process does."""
    return ranks.from_first(compute) if ranks else compute()


def continue_run(request: TrainRequest) -> TrainRequest:
    """Return the request of processes that torchrun has restarted: resume the run if they had started it.

    They had, if its state was saved after their launcher was started. Otherwise the command is tried again.
    """
    named = request.corpus or list(resolve(request.given).data.corpus) or [str(presets.bundled_corpus())]
    state = (request.output or choose_folder(named)) / STATE
    is_theirs = state.exists() and state.stat().st_mtime >= parent_started_at()
    if not is_theirs or request.resume or request.dry_run or request.find_lr:
        return request
    return replace(request, corpus=named, resume=True, overwrite=False, init_from=None)


def plan_new(console: Console, request: TrainRequest, ranks: Ranks | None) -> Plan:
    """Return the plan of a new run. The model of --init-from determines the defaults of the model settings."""
    init_from = ModelFile.load(find_model(request.init_from, {})) if request.init_from else None
    shape = from_dict({"model": init_from.config.to_dict()["model"]}, "--init-from") if init_from else {}
    named = request.corpus or list(resolve(request.given).data.corpus)
    sources, stdin = resolve_sources(console, named)
    if ranks and STDIN in sources:
        stdin = share_spool(ranks, Spool.from_stdin(sources, stdin) if ranks.is_first else None)
    config = resolve(shape | request.given | {"data.corpus": Setting(sources, "the corpus")})
    folder = RunFolder(request.output or choose_folder(sources))
    return Plan(config, folder, stdin, overwrite=request.overwrite, init_from=init_from)


def plan_resumed(request: TrainRequest, ranks: Ranks | None) -> Plan:
    """Return the plan that continues a run: the one in --output, else the corpus's, else the newest."""
    path = from_first(ranks, lambda: find_resumed(request))
    folder = RunFolder(path)
    config = update_resumed(from_first(ranks, folder.load_config), request.given, request.corpus)
    spool = share_spool(ranks, folder.spool) if ranks and STDIN in config.data.corpus else folder.spool
    return Plan(config, folder, spool, resume=True)


def find_resumed(request: TrainRequest) -> Path:
    """Return the folder of the run to continue."""
    if request.output or request.corpus:
        return request.output or choose_folder(request.corpus)
    return find_newest_run("name the folder of a run with -o")


def choose_folder(sources: Sequence[str]) -> Path:
    """Return runs/<corpus name>."""
    return Path("runs") / derive_run_name(sources)


def resolve_sources(console: Console, corpus: list[str]) -> tuple[tuple[str, ...], BinaryIO | Spool | None]:
    """Return the absolute paths of the corpus, so that the run finds it from any folder, and what "-" is read from.

    A named pipe, as of `<(zcat book.gz)`, is read like stdin. Without a corpus it is the one that ships with charlstm.

    Raises UsageError if no corpus is named and something is piped in, or for more than one pipe.
    """
    if not corpus:
        check_unread_input(console, "with < /dev/null it is the text that ships with charlstm")
        console.note("no corpus named: training on the small English text that ships with charlstm")
        return (str(presets.bundled_corpus()),), None
    pipes = [source for source in corpus if source == "-" or is_pipe(Path(source))]
    if len(pipes) > 1:
        raise UsageError(f"only one corpus can come through a pipe, not {len(pipes)}", "concatenate them with cat")
    if "-" in pipes and not console.piped:
        raise UsageError("- reads the corpus from stdin, and nothing was piped in", "cat *.txt | charlstm train -")
    stdin: BinaryIO | Spool | None = console.stdin
    if pipes and "-" not in pipes:
        with Path(pipes[0]).open("rb") as pipe:
            stdin = Spool.from_stream(pipe)
    return tuple("-" if source in pipes else make_absolute(source) for source in corpus), stdin


def is_pipe(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def make_absolute(source: str) -> str:
    """Return the absolute path. Raises UsageError for a name that a config file cannot hold."""
    try:
        source.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the name of the corpus {source!r} is not UTF-8", "rename it, or: charlstm train - < FILE"
        ) from None
    return str(Path(source).absolute())


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


def note_slowness(console: Console, events: Iterable[Event], planned: float) -> Iterator[Event]:
    """Yield the events, and note once if training is much slower than the `planned` characters/s."""
    steps, seconds_per_character, noted = 0, 0.0, False
    for event in events:
        if isinstance(event, Stepped) and event.chars_per_second and not noted:
            steps, seconds_per_character = steps + 1, seconds_per_character + 1 / event.chars_per_second
            speed = steps / seconds_per_character
            if noted := event.fraction_done > SLOWNESS_CHECK and speed < SLOWNESS * planned:
                console.note(
                    f"training at {speed:,.0f} characters/s; the settings were chosen for {planned:,.0f}. Do other "
                    "programs use the processor?"
                )
        yield event


def note_length(console: Console, events: Iterable[Event]) -> Iterator[Event]:
    """Yield the events, and note after some steps if the run will take very long."""
    for count, event in enumerate(events):
        if isinstance(event, Stepped) and count == LENGTH_CHECK_STEPS:
            seconds, speed = event.seconds_left or 0.0, event.chars_per_second or 0.0
            if seconds > LONG_RUN_SECONDS:
                console.note(
                    f"this run takes about {format_duration(seconds)} at {speed:,.0f} characters/s; --max-time 8h "
                    "would choose settings for eight hours"
                )
        yield event


def write_events(console: Console, events: Iterable[Event], folder: Path) -> Iterator[Event]:
    """Yield the events, and write all except the single steps to stdout as JSON."""
    for event in events:
        record = describe_event(event)
        if isinstance(event, Finished):
            record["run"] = str(folder)
        if record:
            write_json(console, record)
        yield event


def describe_event(event: Event) -> dict[str, Any]:
    """Return the JSON record of an event, with the keys of metrics.jsonl; empty for a step."""
    names = {
        Started: "started",
        Validated: "validated",
        Saved: "saved",
        RolledBack: "rolled_back",
        BestEvaluated: "best_evaluated",
        Finished: "finished",
    }
    if type(event) not in names:
        return {}
    record = asdict(event)
    if isinstance(event, (Validated, Saved)):
        record["loss_nats"] = record.pop("train_loss_nats")
    if isinstance(event, Validated):
        del record["metrics"]
        record |= {f"validation_{name}": value for name, value in event.metrics.to_dict().items()}
    return {"event": names[type(event)], **record}


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


def update_resumed(config: Config, given: Settings, corpus: list[str]) -> Config:
    """Return a run's config with the given settings. Raises UsageError for one that a resumed run cannot change."""
    after = updated(config, given, "the command line")
    check_resumable(config, after, given)
    if not corpus or "-" in corpus:
        return after
    return replace(after, data=replace(after.data, corpus=tuple(map(make_absolute, corpus))))
