"""`charlstm train`: a model from a corpus."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlstm import presets
from charlstm.config import (
    SECTIONS,
    Config,
    Given,
    Settings,
    from_assignments,
    from_environment,
    from_file,
    from_tree,
    resolve,
)
from charlstm.console import Console, printable
from charlstm.errors import UsageError
from charlstm.runs import find_model, newest_run

if TYPE_CHECKING:
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
    given = from_file(config) if config else {}
    given |= from_environment(console.environ, *SECTIONS) | from_assignments(set_ or []) | settings
    if preset:
        given = presets.preset(preset) | given

    from charlstm.checkpoint import RunFolder
    from charlstm.data.corpus import read_corpus

    if resume:
        folder = RunFolder(output or (default_folder(corpus) if corpus else newest_run()))
        resolved = changed(folder.config(), given, corpus)
        text = read_corpus(resolved.data, folder.spooled)
        first = None
    else:
        first = weights_of(init_from) if init_from else None
        resolved = resolve(
            (from_tree({"model": first.config.to_dict()["model"]}, "--init-from") if first else {})
            | given
            | corpus_setting(console, corpus)
        )
        folder = RunFolder(output or default_folder(list(resolved.data.corpus)))
        if not dry_run:
            folder.check_free(overwrite=overwrite)
        text = read_corpus(resolved.data, console.stdin)

    from charlstm.cli.show_training import Display, show_plan

    show_plan(console, text, resolved)
    if dry_run:
        console.write(resolved.to_toml().encode())
        return 0

    from charlstm.cli.interrupt import Interrupt
    from charlstm.training.loop import train as events

    with Interrupt(console) as interrupt:
        display = Display(console, resolved, folder, samples=not no_samples)
        finished = display.follow(
            events(text, resolved, folder, resume=resume, overwrite=overwrite, init_from=first, stop=interrupt)
        )
    if finished.reason == "stopped":
        path = printable(shlex.quote(str(folder.path)))
        saved = f"saved in {path}; go on with: charlstm train --resume -o {path}"
        console.note(f"stopped at step {finished.step:,}; {saved if finished.step else 'nothing was trained yet'}")
        return interrupt.status
    console.write(f"{folder.path}\n".encode("utf-8", "surrogateescape"))
    return 0


def default_folder(sources: list[str]) -> Path:
    """runs/<corpus name>."""
    from charlstm.data.corpus import name_of

    return Path("runs") / name_of(tuple(sources))


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
