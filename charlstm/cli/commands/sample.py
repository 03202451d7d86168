"""`charlstm sample`: text from a model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlstm.cli.options import ModelOption, command
from charlstm.cli.prompt import read_prompt
from charlstm.config import AdaptationConfig, Direction, SamplingConfig, UnknownPolicy
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.settings import Settings, build_section, from_environment
from charlstm.storage.locate import find_model

if TYPE_CHECKING:
    from charlstm.cli.novelty import Lookout
    from charlstm.sampling.generate import Fragment
    from charlstm.storage.model import ModelFile
    from charlstm.vocabulary import Vocabulary

LONG_PROMPT = 20_000


@command(
    "sampling",
    "adaptation",
    short="model prompt num length temperature top_p stop seed no_echo as_json",
    examples=(
        "charlstm sample --prompt 'Once upon a time' -t 0.8",
        "charlstm sample -m runs/names -n 20 --stop $'\\n' | sort -u",
    ),
)
def sample(
    *,
    console: Console,
    settings: Settings,
    model: ModelOption = None,
    prompt: Annotated[
        str | None,
        typer.Option("-p", "--prompt", help="Text to go on from. (default: what is piped in, if anything is)"),
    ] = None,
    prompt_file: Annotated[
        str | None, typer.Option(help="A file that holds the prompt; - is stdin. One newline at its end is dropped.")
    ] = None,
    direction: Annotated[
        Direction,
        typer.Option(help="Write on from the prompt or, with a bidirectional model, what leads up to it."),
    ] = "forward",
    num: Annotated[int, typer.Option("-n", "--num", help="Samples to write.", min=1, max=1_000_000)] = 1,
    stop: Annotated[list[str] | None, typer.Option(help="End a sample before this text. Repeatable.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Same seed, same samples. (default: one is drawn, and shown on stderr)", min=0, envvar="CHARLSTM_SEED"
        ),
    ] = None,
    adapt: Annotated[
        str | None,
        typer.Option(
            help="Learn from this text first, and write in its manner; - is stdin. The model's file stays as it is.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    unknown: Annotated[
        UnknownPolicy, typer.Option(help="Characters of the prompt or --adapt that the model has never seen.")
    ] = "error",
    no_echo: Annotated[bool, typer.Option("--no-echo", help="Write the sample without the prompt.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Do not write a newline after the sample.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write a JSON object for each sample.")] = False,
    novelty: Annotated[
        bool, typer.Option("--novelty", help="Tell how much of each sample stands word for word in the training text.")
    ] = False,
) -> None:
    """Write text with a trained model."""
    config = build_section(SamplingConfig, from_environment(console.environ, "sampling") | settings, "sampling")
    adaptation = build_section(
        AdaptationConfig, from_environment(console.environ, "adaptation") | settings, "adaptation"
    )
    check(config, num, stop or [], as_json, novelty, prompt, prompt_file, direction)
    check_adapt(settings, adapt, prompt_file)
    text = "" if adapt == "-" and prompt is None and prompt_file is None else read_prompt(console, prompt, prompt_file)

    from charlstm.data.normalize import normalize_text
    from charlstm.storage.model import ModelFile
    from charlstm.text_model import TextModel, draw_seed

    path = find_model(model, console.environ)
    file = ModelFile.load(path)
    if adapt is not None:
        # a prompt that cannot be read is refused before the wait, not after
        file.vocabulary.encode(normalize_text(text, file.config.data), unknown)
        file = adapted_to(console, file, direction, adapt, unknown, adaptation)
    text_model = TextModel(file, direction)  # refuses a direction before a long corpus is read
    lookout = looking_out(console, file, path) if novelty else None
    if seed is None:
        seed = draw_seed()
        console.note(f"{escape_controls(str(path))}, --seed {seed}", "dim")
    elif model is None:
        console.note(escape_controls(str(path)), "dim")
    if len(text) > LONG_PROMPT:
        console.note(f"reading a prompt of {len(text):,} characters", "dim")
    warn_of_stops(console, stop or [], text_model.vocabulary)

    echoed = b"" if no_echo else as_bytes(text)
    fragments = in_order(
        text_model.stream_fragments(text, config, seed=seed, n=num, stop=stop or [], unknown=unknown, scored=as_json)
    )
    if as_json:
        write_objects(console, objects(fragments, text, seed, direction), lookout)
        return
    fragments = lookout.noting(console, fragments) if lookout else fragments
    newline = b"" if raw else b"\n"
    if direction == "backward":
        write_text(console, fragments, b"", num, echoed + newline)
    else:
        write_text(console, fragments, echoed, num, newline)


def looking_out(console: Console, file: ModelFile, path: Path) -> Lookout:
    from charlstm.cli.novelty import Lookout

    return Lookout(console, file, path)


def check(
    config: SamplingConfig,
    num: int,
    stops: list[str],
    as_json: bool,
    novelty: bool,
    prompt: str | None,
    prompt_file: str | None,
    direction: Direction,
) -> None:
    """Raises UsageError for options that make no sense together."""
    if prompt is not None and prompt_file is not None:
        raise UsageError("--prompt and --prompt-file cannot both be given")
    if "" in stops:
        raise UsageError("--stop must not be empty")
    if config.length == 0 and as_json and not stops:
        raise UsageError("-l 0 never ends the object that --json would write", "give a --stop, or a length")
    if config.length == 0 and novelty and not stops:
        raise UsageError("-l 0 never ends the sample that --novelty is about", "give a --stop, or a length")
    if config.length == 0 and direction == "backward" and not stops:
        raise UsageError("-l 0 never comes to the beginning of what is written backward", "give a --stop, or a length")
    if config.length == 0 and num > 1 and not stops:
        raise UsageError(f"-l 0 never ends the first of -n {num} samples", "give a --stop, or a length")


def check_adapt(settings: Settings, adapt: str | None, prompt_file: str | None) -> None:
    """Raises UsageError for options of --adapt that make no sense without it or together."""
    own = [given.where for key, given in settings.items() if key.startswith("adaptation.")]
    if own and adapt is None:
        raise UsageError(f"{own[0]} does nothing without --adapt FILE")
    if adapt == "-" and prompt_file == "-":
        raise UsageError("--adapt - and --prompt-file - cannot both read stdin")


def adapted_to(
    console: Console,
    file: ModelFile,
    direction: Direction,
    source: str,
    unknown: UnknownPolicy,
    config: AdaptationConfig,
) -> ModelFile:
    """The model after reading a text once. Raises as `charlstm eval` does for a text that cannot be read."""
    from charlstm.cli.commands.eval import watched
    from charlstm.cli.texts import given_text
    from charlstm.runtime import configure_process

    half = file.select_direction(direction)
    configure_process()
    tokens, _ = given_text(console, file, [source], unknown)
    ids = tokens.span(0, len(tokens))[:: -1 if direction == "backward" else 1]

    from charlstm.evaluation.dynamic import adapt
    from charlstm.model.loading import load_language_model

    model = load_language_model(half)
    for _ in watched(console, adapt(model, ids, file.vocabulary.bos, config), len(ids)):
        pass
    return file.with_direction(direction, model.export_weights())


def warn_of_stops(console: Console, stops: list[str], vocabulary: Vocabulary) -> None:
    for stop in stops:
        if (vocabulary.lookup(stop) < 0).any():
            console.warn(f"--stop {stop!r} has a character that the model never writes")


def in_order(fragments: Iterable[Fragment]) -> Iterator[Fragment]:
    """Sample after sample: the first as it is made, the others from where they have got to when their turn comes."""
    waiting: dict[int, list[Fragment]] = defaultdict(list)
    turn = 0
    for fragment in fragments:
        waiting[fragment.index].append(fragment)
        while waiting[turn]:
            ready = waiting.pop(turn)
            yield from ready
            if not ready[-1].end:
                break
            turn += 1


def write_text(console: Console, fragments: Iterable[Fragment], echoed: bytes, num: int, end: bytes) -> None:
    """Each sample between what is written before it and after it."""
    console.write(echoed)  # before the network reads the prompt: that can take a while
    for fragment in fragments:
        console.write(fragment.text)
        if fragment.end:
            console.write(end)
            if fragment.index + 1 < num:
                rule(console)
                console.write(echoed)


def rule(console: Console) -> None:
    """A line between samples where somebody watches: on stderr, so that stdout has the samples only."""
    if console.can_animate and console.stdout.isatty():
        console.flush()
        console.note("─" * 40, "dim")


def objects(
    fragments: Iterable[Fragment], prompt: str | bytes, seed: int, direction: Direction
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each sample, and what there is to say of it."""
    text = b""
    for fragment in fragments:
        text += fragment.text
        if fragment.end:
            result: dict[str, Any] = {
                "text": text.decode("utf-8", "replace"),
                "prompt": as_bytes(prompt).decode("utf-8", "replace"),
                "direction": direction,
                "index": fragment.index,
                "seed": seed,
                "stop_reason": fragment.end,
                "mean_log_probability_nats": round(fragment.mean_log_probability, 6),
            }
            yield text, result
            text = b""


def write_objects(console: Console, results: Iterable[tuple[bytes, dict[str, Any]]], lookout: Lookout | None) -> None:
    for _, result in lookout.adding(results) if lookout else results:
        console.write(json.dumps(result, ensure_ascii=False).encode() + b"\n")


def as_bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
