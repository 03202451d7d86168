"""`charlstm train`: a model from a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from charlstm import presets
from charlstm.cli.options import (
    PATH,
    ConfigOption,
    CorpusArgument,
    JsonLinesOption,
    PresetOption,
    SetOption,
    command,
    merge_settings,
)
from charlstm.cli.save_signal import SaveSignal
from charlstm.console import Console
from charlstm.errors import UsageError
from charlstm.settings import Settings


@dataclass(frozen=True)
class TrainRequest:
    """What to train, and what to do with it."""

    corpus: list[str]
    given: Settings
    preset: str | None
    output: Path | None
    processes: int
    resume: bool
    overwrite: bool
    init_from: Path | None
    dry_run: bool
    find_lr: bool
    samples: bool
    tensorboard: bool
    as_json: bool


@command(
    "model",
    "data",
    "training",
    "card",
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
        typer.Option(
            "-o",
            "--output",
            help="Run folder. (default runs/<corpus name>)",
            metavar="FOLDER",
            click_type=PATH,
            show_default=False,
        ),
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    processes: Annotated[
        int,
        typer.Option(
            help="Processes on this machine that train together, each with some of the streams. For several machines "
            "or restarts, use torchrun.",
            metavar="N",
            min=1,
        ),
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run: the one in -o, the corpus's, or the newest.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(
            help="Start a new run with the weights of this run folder, model file or builtin.",
            metavar="MODEL",
            click_type=PATH,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings, with corpus and model size on stderr, and exit.")
    ] = False,
    find_lr: Annotated[
        bool,
        typer.Option("--find-lr", help="Run a learning-rate range test, print the rate it suggests, and exit."),
    ] = False,
    no_samples: Annotated[
        bool, typer.Option("--no-samples", help="Do not show a sample after each validation.")
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Also write metrics, settings and samples for TensorBoard, in the run folder."
        ),
    ] = False,
    as_json: JsonLinesOption = False,
) -> int:
    """Train a model on text.

    Prints the path of the run folder. With --max-time and no preset, the size of the model and its other settings are
    chosen to suit the text, the time and this machine. Ctrl-C saves the run; --resume continues it. SIGUSR1 saves the
    run while it continues.

    Under torchrun, its processes train together: torchrun --nproc-per-node 8 -m charlstm train book.txt.
    """
    if resume and (overwrite or init_from or dry_run):
        raise UsageError("--resume cannot be combined with --overwrite, --init-from or --dry-run")
    if find_lr and (resume or overwrite or init_from or dry_run):
        raise UsageError(
            "--find-lr tests a new model and saves nothing: it cannot be combined with --resume, --overwrite, "
            "--init-from or --dry-run"
        )
    given = merge_settings(console, presets.load_preset(preset) if preset else {}, config, set_, settings)

    with SaveSignal() as save_signal:  # before the slow imports: the signal would end the process
        from charlstm.cli.actions.train import run_train

        request = TrainRequest(
            corpus=corpus or [],
            given=given,
            preset=preset,
            output=output,
            processes=processes,
            resume=resume,
            overwrite=overwrite,
            init_from=init_from,
            dry_run=dry_run,
            find_lr=find_lr,
            samples=not no_samples,
            tensorboard=tensorboard,
            as_json=as_json,
        )
        return run_train(console, request, save_signal)
