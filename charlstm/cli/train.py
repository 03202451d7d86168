"""`charlstm train`: a model from a corpus."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from charlstm import presets
from charlstm.config import SECTIONS, Config
from charlstm.console import Console, printable
from charlstm.errors import UsageError
from charlstm.runs import find_model, newest_run
from charlstm.settings import (
    Given,
    Settings,
    from_assignments,
    from_environment,
    from_file,
    from_tree,
    resolve,
)

if TYPE_CHECKING:
    from charlstm.checkpoint import RunFolder
    from charlstm.modelfile import ModelFile

MAY_CHANGE = {f"training.{name}" for name in ("epochs", "max_time", "lr", "device", "precision", "validate_every")}
"""Settings of a run that may be others when it is resumed; with the rest it would be another run."""


def train(
    corpus: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders (their *.txt) or - for stdin. (default: the English text that ships with charlstm)",
            metavar="[CORPUS ...]",
            show_default=False,
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The run's folder. (default runs/<corpus name>)", show_default=False),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Settings that ship with charlstm: {', '.join(presets.names())}.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a TOML file, as a run's config.toml.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting. Repeatable.", metavar="SECTION.KEY=VALUE")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run: the one in -o, the corpus's, or the newest.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where there is a run already.")] = False,
    init_from: Annotated[Path | None, typer.Option(help="Begin with the weights of this model.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show settings, corpus and size of the model, and stop.")
    ] = False,
    no_samples: Annotated[bool, typer.Option("--no-samples", help="Do not show a sample at each validation.")] = False,
) -> int:
    """Train a model on text. Prints the run's folder."""
    if resume and (overwrite or init_from or dry_run):
        raise UsageError(
            "--resume goes on with a run as it is: it does not go with --overwrite, --init-from or --dry-run"
        )
    given = presets.preset(preset) if preset else {}
    given |= from_file(config) if config else {}
    given |= from_environment(console.environ, *SECTIONS) | from_assignments(set_ or []) | settings
    first = weights_of(init_from) if init_from else None
    plan = resumed(output, corpus, given) if resume else begun(console, output, corpus, given, first)
    if not (resume or dry_run):
        plan.folder.check_free(overwrite=overwrite)

    from charlstm.data.corpus import read_corpus

    text = read_corpus(plan.config.data, plan.folder.spooled if resume else console.stdin)

    from charlstm.cli.show_training import Display, show_plan

    show_plan(console, text, plan.config)
    if dry_run:
        console.write(plan.config.to_toml().encode())
        return 0

    from charlstm.cli.interrupt import Interrupt
    from charlstm.training.loop import train as events

    with Interrupt(console) as interrupt:
        training = events(
            text, plan.config, plan.folder, resume=resume, overwrite=overwrite, init_from=first, stop=interrupt
        )
        finished = Display(console, plan.config, plan.folder, samples=not no_samples).follow(training)
    if finished.reason == "stopped":
        say_how_to_go_on(console, plan.folder.path, finished.step)
        return interrupt.status
    console.write(f"{plan.folder.path}\n".encode("utf-8", "surrogateescape"))
    return 0


class Plan(NamedTuple):
    """What is to be trained, and where it goes."""

    config: Config
    folder: RunFolder


def begun(
    console: Console, output: Path | None, corpus: list[str] | None, given: Settings, first: ModelFile | None
) -> Plan:
    """A new run; with another model's weights to begin with, its layers are the default."""
    from charlstm.checkpoint import RunFolder

    shape = from_tree({"model": first.config.to_dict()["model"]}, "--init-from") if first else {}
    config = resolve(shape | given | corpus_setting(console, corpus))
    return Plan(config, RunFolder(output or default_folder(config.data.corpus)))


def resumed(output: Path | None, corpus: list[str] | None, given: Settings) -> Plan:
    """A run that is there already: the one in `output`, the corpus's or the newest."""
    from charlstm.checkpoint import RunFolder

    folder = RunFolder(output or (default_folder(corpus) if corpus else newest_run()))
    return Plan(changed(folder.config(), given, corpus), folder)


def say_how_to_go_on(console: Console, folder: Path, step: int) -> None:
    path = printable(shlex.quote(str(folder)))
    saved = f"saved in {path}; go on with: charlstm train --resume -o {path}"
    console.note(f"stopped at step {step:,}; {saved if step else 'nothing was trained yet'}")


def default_folder(sources: Sequence[str]) -> Path:
    """runs/<corpus name>."""
    from charlstm.data.corpus import name_of

    return Path("runs") / name_of(sources)


def corpus_setting(console: Console, corpus: list[str] | None) -> Settings:
    """What to train on, by absolute path, so that the run finds it again from anywhere."""
    if not corpus:
        corpus = [str(presets.corpus())]
        console.note("no corpus was named: training on the small one that ships with charlstm")
    if "-" in corpus and not console.piped:
        raise UsageError("- reads the corpus from stdin, and nothing was piped in", "cat *.txt | charlstm train -")
    sources = tuple(source if source == "-" else str(Path(source).absolute()) for source in corpus)
    return {"data.corpus": Given(sources, "the corpus")}


def weights_of(model: Path) -> ModelFile:
    from charlstm.modelfile import ModelFile

    return ModelFile.load(find_model(model, {}))


def changed(was: Config, given: Settings, corpus: list[str] | None) -> Config:
    """A run's settings with those changed that may change. Raises UsageError that names one that may not."""
    before = from_tree(was.to_dict(), "the run")
    after = resolve(before | given)
    for section, values in was.to_dict().items():
        for name, old in values.items():
            new = after.to_dict()[section][name]
            if new != old and f"{section}.{name}" not in MAY_CHANGE:
                where = given[f"{section}.{name}"].where
                raise UsageError(
                    f"{where} is {new} here and {old} in the run, and cannot change when it is resumed",
                    "--init-from begins another run with its weights",
                )
    return replace(after, data=replace(after.data, corpus=tuple(corpus))) if corpus and "-" not in corpus else after
