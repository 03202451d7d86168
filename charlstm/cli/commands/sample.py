"""`charlstm sample`: text from a model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from charlstm.cli.options import (
    SOURCE,
    AverageOption,
    JsonLinesOption,
    ModelOption,
    SampleSeedOption,
    UnknownOption,
    command,
)
from charlstm.cli.prompt import read_prompt
from charlstm.config import AdaptationConfig, Direction, SamplingConfig, UnknownPolicy
from charlstm.console import Console
from charlstm.errors import NoRunError, UsageError
from charlstm.runtime import count_cores
from charlstm.settings import Settings, build_section, from_environment
from charlstm.storage.locate import BUILTIN, BUILTIN_MODEL, find_model

MIN_SAMPLES = 16
"""Fewest samples per process: fewer are drawn in less time than a process takes to start."""


@dataclass(frozen=True)
class SampleRequest:
    """What to sample and how to write it."""

    prompt: str | bytes
    """The bytes of a file or pipe are still to be decoded."""
    sampling: SamplingConfig
    has_length: bool
    """Whether the user gave the length."""
    seed: int | None
    num: int
    stops: list[str]
    direction: Direction
    unknown: UnknownPolicy
    clamps: list[str]
    adapt: str | None
    """The text to adapt to first: a file, or - for stdin."""
    average: Path | None
    """The model file with which the model is averaged."""
    mix: str | None
    """The text whose n-grams are mixed in: a file."""
    adaptation: AdaptationConfig
    echo: bool
    newline: bool
    as_json: bool
    novelty: bool
    processes: int
    """How many processes share the samples."""


@command(
    "sampling",
    "adaptation",
    short="model prompt num length temperature top_p stop seed no_echo as_json",
    examples=(
        "charlstm sample --prompt 'Once upon a time' -t 0.8",
        "charlstm sample -m runs/names -n 20 -l 40 --no-echo | sort -u",
    ),
)
def sample(
    *,
    console: Console,
    settings: Settings,
    model: ModelOption = None,
    prompt: Annotated[
        str | None,
        typer.Option("-p", "--prompt", help="Text to continue. (default: stdin, if piped)", metavar="TEXT"),
    ] = None,
    prompt_file: Annotated[
        str | None,
        typer.Option(
            help="Read the prompt from a file, without the newline at its end; - is stdin.",
            metavar="FILE",
            click_type=SOURCE,
        ),
    ] = None,
    direction: Annotated[
        Direction,
        typer.Option(help="Continue the prompt or, with a bidirectional model, write what leads up to it."),
    ] = "forward",
    num: Annotated[int, typer.Option("-n", "--num", help="Number of samples.", metavar="N", min=1, max=1_000_000)] = 1,
    stop: Annotated[
        list[str] | None, typer.Option(help="End a sample before this text. Repeatable.", metavar="TEXT")
    ] = None,
    seed: SampleSeedOption = None,
    adapt: Annotated[
        str | None,
        typer.Option(
            help="Learn from this text first and write in its style; - is stdin. The model file is not changed.",
            metavar="FILE",
            click_type=SOURCE,
            show_default=False,
        ),
    ] = None,
    average: AverageOption = None,
    mix: Annotated[
        str | None,
        typer.Option(
            help="Mix the model with the n-grams of this text, as eval --mix does.",
            metavar="FILE",
            click_type=SOURCE,
            show_default=False,
        ),
    ] = None,
    clamp: Annotated[
        list[str] | None,
        typer.Option(
            help="Fix a unit (LAYER.UNIT, see charlstm inspect) at a value, as 0.17=2.0, or at a number of standard "
            "deviations from its mean over the validation part, as 0.17=+2. Repeatable.",
            metavar="UNIT=VALUE",
            show_default=False,
        ),
    ] = None,
    unknown: UnknownOption = "error",
    no_echo: Annotated[bool, typer.Option("--no-echo", help="Write the sample without the prompt.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Do not write a newline after a sample.")] = False,
    novelty: Annotated[
        bool, typer.Option("--novelty", help="Report how much of each sample is copied from the training text.")
    ] = False,
    as_json: JsonLinesOption = False,
) -> None:
    """Write text with a trained model.

    A sample is the prompt, the generated characters and one newline. Stop strings are not written. If there is no run,
    the model that ships with charlstm is used.
    """
    environment = from_environment(console.environ, "sampling", "adaptation") | settings
    sampling = build_section(SamplingConfig, environment, "sampling")
    adaptation = build_section(AdaptationConfig, environment, "adaptation")
    check_sources(settings, prompt, prompt_file, adapt)
    if average is not None and adapt == "-":
        raise UsageError("--adapt reads a file, not stdin, with --average: both models learn from it")
    if mix == "-":
        raise UsageError("--mix reads a file, not stdin")
    if "" in (stop or []):
        raise UsageError("--stop must not be empty")
    adapts_to_stdin = adapt == "-" and prompt is None and prompt_file is None
    text = "" if adapts_to_stdin else read_prompt(console, prompt, prompt_file)
    path = find_model_to_sample(console, model)
    processes = share_samples(num)

    from charlstm.cli.actions.sample import write_samples

    request = SampleRequest(
        prompt=text,
        sampling=sampling,
        has_length="sampling.length" in environment,
        seed=seed,
        num=num,
        stops=stop or [],
        direction=direction,
        unknown=unknown,
        clamps=clamp or [],
        adapt=adapt,
        average=None if average is None else find_model(average, console.environ),
        mix=mix,
        adaptation=adaptation,
        echo=not no_echo,
        newline=not raw,
        as_json=as_json,
        novelty=novelty,
        processes=processes,
    )
    write_samples(console, path, request, show_model=model is None)


def find_model_to_sample(console: Console, model: Path | None) -> Path:
    """Return the model file at `model`, else the default one, else, after a note, the one that ships with charlstm.

    Raises UsageError as `find_model` does; where no note is shown (--quiet), also if there is no default one.
    """
    try:
        return find_model(model, console.environ)
    except NoRunError as error:
        if console.quiet:
            raise
        console.note(
            f"{error.message}: using {BUILTIN}, the model that ships with charlstm; "
            "train your own: charlstm train corpus.txt"
        )
        return BUILTIN_MODEL


def share_samples(samples: int) -> int:
    """Return how many processes share the samples."""
    return min(count_cores(), max(samples // MIN_SAMPLES, 1)) if sys.platform == "linux" else 1


def check_sources(settings: Settings, prompt: str | None, prompt_file: str | None, adapt: str | None) -> None:
    """Raise UsageError if two options read the same input, or one has no effect."""
    if prompt is not None and prompt_file is not None:
        raise UsageError("--prompt and --prompt-file cannot be combined")
    if adapt == "-" and prompt_file == "-":
        raise UsageError("--adapt - and --prompt-file - cannot both read stdin")
    own = [setting.where for key, setting in settings.items() if key.startswith("adaptation.")]
    if own and adapt is None:
        raise UsageError(f"{own[0]} has no effect without --adapt FILE")
