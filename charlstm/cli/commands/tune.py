"""`charlstm tune`: good settings for a corpus, found by trying them."""

from __future__ import annotations

from dataclasses import dataclass, fields
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
from charlstm.config import TrainingConfig
from charlstm.console import Console
from charlstm.errors import UsageError
from charlstm.settings import Setting, Settings
from charlstm.tuning.space import SEARCHED, unset_keys

TRAINING_FLAGS = [f"training.{f.name}" for f in fields(TrainingConfig) if f.name != "max_time"]
"""The training settings with an option here; --time takes the place of --max-time."""

TRIAL_DEFAULTS = {"training.max_time": Setting("1m", "--time")}


@dataclass(frozen=True)
class TuneRequest:
    """What to search, and where."""

    corpus: list[str]
    given: Settings
    trials: int
    output: Path | None
    storage: str | None
    as_json: bool


@command(
    "model",
    "data",
    *TRAINING_FLAGS,
    short="corpus output trials time preset set_ document cell",
    examples=("charlstm tune book.txt --trials 30", "charlstm tune book.txt --time 5m --cell gru"),
)
def tune(
    corpus: CorpusArgument = None,
    *,
    console: Console,
    settings: Settings,
    trials: Annotated[int, typer.Option(help="Number of trials to run now.", min=1, metavar="N")] = 20,
    time: Annotated[
        str | None,
        typer.Option(help="Training time of each trial. (default 1m)", metavar="TIME", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder of the search. (default runs/<corpus name>-tune)",
            metavar="FOLDER",
            click_type=PATH,
            show_default=False,
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Database that searches on several machines share: postgresql://user@host/name. "
            "(default: a journal in the folder)",
            metavar="URL",
            show_default=False,
        ),
    ] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: JsonLinesOption = False,
) -> int:
    """Search for good settings with many short training runs.

    Prints the path of a file for train --config. Settings that you give are kept. The first trial has the settings that
    train --max-time would choose, and the others are searched around them. The same command again continues the search,
    and several processes can share it: in one folder or, with --storage, on several machines.
    """
    if storage == "":
        raise UsageError("--storage must not be empty", "is a shell variable in it unset?")
    from_preset = presets.load_preset(preset) if preset else {}
    given = TRIAL_DEFAULTS | merge_settings(console, from_preset, config, set_, settings)
    if time is not None:
        given["training.max_time"] = Setting(time, "--time")
    if not unset_keys(given):
        raise UsageError(f"nothing to search: {', '.join(SEARCHED)} are all given")

    with SaveSignal() as save_signal:  # before the slow imports: the signal would end the process
        from charlstm.cli.actions.tune import run_search

        request = TuneRequest(corpus or [], given, trials, output, storage, as_json)
        return run_search(console, request, save_signal)
