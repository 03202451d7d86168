"""`charlstm train`: a model from a corpus."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NamedTuple

import typer

from charlstm import presets
from charlstm.cli.options import ConfigOption, CorpusArgument, PresetOption, SetOption, command
from charlstm.config import SECTIONS, Config, ModelConfig
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.settings import (
    Setting,
    Settings,
    check_resumable,
    from_assignments,
    from_dict,
    from_environment,
    from_file,
    from_toml,
    resolve,
    updated,
)
from charlstm.storage.locate import find_model, find_newest_run

if TYPE_CHECKING:
    from charlstm.data.corpus import Corpus
    from charlstm.storage.model import ModelFile
    from charlstm.storage.run import RunFolder
    from charlstm.storage.spool import Spool


@command(
    "model",
    "data",
    "training",
    short="corpus output preset resume document hidden layers cell dropout lr epochs max_time dry_run",
    examples=("charlstm train book.txt --max-time 10m", "charlstm train --resume -o runs/book --epochs 40"),
)
def train(
    corpus: CorpusArgument = None,
    *,
    console: Console,
    settings: Settings,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The run's folder. (default runs/<corpus name>)", show_default=False),
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run: the one in -o, the corpus's, or the newest.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where there is a run already.")] = False,
    init_from: Annotated[Path | None, typer.Option(help="Begin with the weights of this model.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show settings, corpus and size of the model, and stop.")
    ] = False,
    find_lr: Annotated[
        bool,
        typer.Option(
            "--find-lr", help="Print a learning rate for these settings, from a short test on stderr, and stop."
        ),
    ] = False,
    no_samples: Annotated[bool, typer.Option("--no-samples", help="Do not show a sample at each validation.")] = False,
) -> int:
    """Train a model on text.

    Prints the run's folder."""
    if "" in (corpus or []):
        raise UsageError("the name of a corpus must not be empty")
    if resume and (overwrite or init_from or dry_run):
        raise UsageError(
            "--resume goes on with a run as it is: it does not go with --overwrite, --init-from or --dry-run"
        )
    if find_lr and (resume or overwrite or init_from or dry_run):
        raise UsageError(
            "--find-lr tries rates on a fresh model and saves nothing: it does not go with --resume, --overwrite, "
            "--init-from or --dry-run"
        )
    given = all_given(console, preset, config, set_, settings)
    first = weights_of(init_from) if init_from else None
    plan = resumed(output, corpus, given) if resume else begun(console, output, corpus, given, first, overwrite)
    if not (resume or dry_run or find_lr):
        plan.folder.check_unused(overwrite=overwrite)

    from charlstm.cli.display import show_plan
    from charlstm.cli.reading import read, with_split

    text = read(console, plan.config.data, plan.stdin)
    if not resume:
        plan = plan._replace(config=with_split(plan.config, given, text))
    if preset:
        console.note(f"preset   {preset}: {presets.describe_preset(preset)}")
    elif plan.config.training.max_time and not resume:
        plan = timed(console, plan, text, given)
    show_plan(console, text, plan.config)
    if dry_run:
        check_size(text, plan.config)
        console.write(plan.config.to_toml().encode())
        return 0
    if find_lr:
        from charlstm.cli.find_lr import show_range_test

        return show_range_test(console, text, plan.config)
    return carry_out(console, plan, text, samples=not no_samples)


def timed(console: Console, plan: Plan, corpus: Corpus, given: Settings) -> Plan:
    """The settings that nobody chose, as they suit the text, the time and this machine."""
    from charlstm.runtime import configure_process

    configure_process()
    from charlstm.training.auto_config import choose_config

    shape = {f"model.{f.name}" for f in fields(ModelConfig)} if plan.first else set()
    choice = choose_config(corpus, plan.config, {*given, *shape})
    console.note(f"chosen   {choice}")
    return plan._replace(config=choice.config)


def all_given(
    console: Console, preset: str | None, config: Path | None, assignments: list[str] | None, flags: Settings
) -> Settings:
    """What was given from everywhere: a flag before the environment, that before a file, that before a preset."""
    given = presets.load_preset(preset) if preset else {}
    given |= config_settings(console, config)
    return given | from_environment(console.environ, *SECTIONS) | from_assignments(assignments or []) | flags


class Plan(NamedTuple):
    """What is to be trained, and where it goes."""

    config: Config
    folder: RunFolder
    stdin: BinaryIO | Spool | None  # what the corpus "-" is read from
    resume: bool = False
    overwrite: bool = False
    first: ModelFile | None = None  # whose weights to begin with


def carry_out(console: Console, plan: Plan, corpus: Corpus, *, samples: bool) -> int:
    """Trains, shows how it goes, and prints the run's folder. Gives the exit status."""
    from charlstm.cli.display import Display
    from charlstm.cli.interrupt import Interrupt
    from charlstm.runtime import configure_process

    configure_process()
    from charlstm.training.run import train as events

    config, folder = plan.config, plan.folder
    with Interrupt(console) as interrupt:
        training = events(
            corpus,
            config,
            folder,
            resume=plan.resume,
            overwrite=plan.overwrite,
            init_from=plan.first,
            stop=interrupt,
        )
        finished = Display(console, corpus, config, folder, samples).follow(training)
    if finished.reason == "stopped":
        say_how_to_go_on(console, folder.path, finished.step)
        return interrupt.status
    if finished.reason == "patience":
        console.note(f"ended at step {finished.step:,}: {config.training.patience} validations without a better loss")
    elif plan.resume and not finished.steps:
        console.note(f"it had ended at step {finished.step:,}; a higher --epochs or --max-time would make it go on")
    console.write(f"{folder.path}\n".encode("utf-8", "surrogateescape"))
    return 0


def check_size(corpus: Corpus, config: Config) -> None:
    """Raises CharlstmError if training would: for a corpus too small for the settings."""
    from charlstm.data.batches import Batches

    train = corpus.split(config.data.split).part("train")
    Batches(train, config.training.seq_len, config.training.batch_size, seed=0)


def begun(
    console: Console,
    output: Path | None,
    corpus: list[str] | None,
    given: Settings,
    first: ModelFile | None,
    overwrite: bool,
) -> Plan:
    """A new run; with another model's weights to begin with, its layers are the default."""
    from charlstm.storage.run import RunFolder

    shape = from_dict({"model": first.config.to_dict()["model"]}, "--init-from") if first else {}
    named = corpus or [str(source) for source in given.get("data.corpus", Setting((), "")).value]
    sources, stdin = openable(console, named)
    config = resolve(shape | given | {"data.corpus": Setting(sources, "the corpus")})
    return Plan(config, RunFolder(output or default_folder(sources)), stdin, overwrite=overwrite, first=first)


def resumed(output: Path | None, corpus: list[str] | None, given: Settings) -> Plan:
    """A run that is there already: the one in `output`, the corpus's or the newest."""
    from charlstm.storage.run import RunFolder

    folder = RunFolder(output or (default_folder(corpus) if corpus else find_newest_run()))
    return Plan(changed(folder.load_config(), given, corpus), folder, folder.spool, resume=True)


def say_how_to_go_on(console: Console, folder: Path, step: int) -> None:
    path = escape_controls(shlex.quote(str(folder)))
    saved = f"saved in {path}; go on with: charlstm train --resume -o {path}"
    console.note(f"stopped at step {step:,}; {saved if step else 'nothing was trained yet'}")


def default_folder(sources: Sequence[str]) -> Path:
    """runs/<corpus name>."""
    from charlstm.data.corpus import derive_run_name

    return Path("runs") / derive_run_name(sources)


def openable(console: Console, corpus: list[str]) -> tuple[tuple[str, ...], BinaryIO | Spool | None]:
    """What to train on, by absolute path, so that the run finds it again from anywhere; and what "-" is read from.

    A pipe with a name, as of `<(zcat book.gz)`, is as good as stdin.
    """
    if not corpus:
        unread = " (- would read stdin)" if console.piped else ""
        console.note(f"no corpus was named{unread}: training on the small one that ships with charlstm")
        return (str(presets.bundled_corpus()),), None
    pipes = [source for source in corpus if source == "-" or is_pipe(Path(source))]
    if len(pipes) > 1:
        raise UsageError(f"only one corpus can come through a pipe, not {len(pipes)}", "cat them together")
    if "-" in pipes and not console.piped:
        raise UsageError("- reads the corpus from stdin, and nothing was piped in", "cat *.txt | charlstm train -")
    stdin: BinaryIO | Spool | None = console.stdin
    if pipes and "-" not in pipes:
        from charlstm.storage.spool import Spool

        with Path(pipes[0]).open("rb") as pipe:
            stdin = Spool.from_stream(pipe)
    return tuple("-" if source in pipes else absolute(source) for source in corpus), stdin


def is_pipe(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def absolute(source: str) -> str:
    """Raises UsageError for a name that no config file can hold."""
    try:
        source.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the name of the corpus {source!r} is not UTF-8", "rename it, or: charlstm train - < FILE"
        ) from None
    return str(Path(source).absolute())


def config_settings(console: Console, config: Path | None) -> Settings:
    if config is None:
        return {}
    if str(config) != "-":
        return from_file(config)
    if not console.piped or console.stdin is None:
        raise UsageError("--config - reads stdin, and nothing was piped in")
    return from_toml(console.stdin.read(), "stdin")


def weights_of(model: Path) -> ModelFile:
    from charlstm.storage.model import ModelFile

    return ModelFile.load(find_model(model, {}))


def changed(was: Config, given: Settings, corpus: list[str] | None) -> Config:
    """A run's settings with those changed that may change. Raises UsageError that names one that may not."""
    after = updated(was, given, "the command line")
    check_resumable(was, after, given)
    if not corpus or "-" in corpus:
        return after
    return replace(after, data=replace(after.data, corpus=tuple(map(absolute, corpus))))
