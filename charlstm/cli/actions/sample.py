"""Draw samples and write them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlstm.cli.commands.sample import SampleRequest
from charlstm.cli.escapes import advise_on_escapes
from charlstm.cli.output import write_json
from charlstm.cli.prompt import decode_prompt
from charlstm.config import DOCUMENT_LENGTH
from charlstm.console import Console, escape_controls
from charlstm.data.normalize import normalize_text
from charlstm.errors import UsageError
from charlstm.sampling.fragments import Fragment
from charlstm.sampling.mixture import Mixture
from charlstm.sampling.network import Clamp
from charlstm.storage.locate import name_model
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel, draw_seed
from charlstm.vocabulary import Text, Vocabulary
from charlstm.wording import quantity

if TYPE_CHECKING:
    from charlstm.cli.actions.novelty import NoveltyReport

NEEDS_END = "give a --stop string or a length"

LONG_PROMPT = 20_000
"""Characters of a prompt whose prefill takes long enough for a notice."""

Result = tuple[bytes, dict[str, Any]]
"""The text of a sample, and its record for JSON."""


def write_samples(console: Console, path: Path, request: SampleRequest, *, show_model: bool) -> None:
    """Draw the samples and write them to stdout.

    show_model: print the name of the model on stderr, because the user did not name it.
    """
    file = ModelFile.load(path)
    writes_documents = file.vocabulary.end_of_document is not None
    if request.sampling.length == 0 and not (request.stops or writes_documents):
        check_unlimited(request)
    has_default_limit = writes_documents and not request.has_length
    if has_default_limit:
        request = replace(request, sampling=replace(request.sampling, length=file.default_length))
    typed = (("-p", request.prompt), *(("--stop", stop) for stop in request.stops))
    for where, text in typed:
        if isinstance(text, str):
            advise_on_escapes(console, where, text, file.vocabulary)
    request = replace(request, prompt=decode_prompt(console, request.prompt, file.config.data.level, request.unknown))
    # An unknown character of the prompt is reported first: before the seed, and before a text is read.
    file.vocabulary.encode(normalize_text(request.prompt, file.config.data), request.unknown)
    averaged = None if request.average is None else ModelFile.load(request.average)
    if averaged:
        file.check_same_vocabulary(averaged)  # before a text is read
    if request.adapt is not None:
        file = adapt_to_text(console, file, request.adapt, request)
        averaged = averaged and adapt_to_text(console, averaged, request.adapt, request)
    clamps = fix_units(console, file, path, request) if request.clamps else []
    mixture = None
    if request.mix is not None:
        mixture = mix_with_text(console, file, averaged, request.mix, request)
    # A wrong direction is rejected before a corpus is read.
    model = TextModel(file, request.direction, clamps, mixture, averaged)
    report = make_novelty_report(console, file, path) if request.novelty else None
    seed = draw_seed() if request.seed is None else request.seed
    if request.seed is None or show_model:
        about = [escape_controls(name_model(path)), model.choose_weights(request.sampling)]
        console.note(", ".join(about + [f"--seed {seed}"] * (request.seed is None)), "dim")
    if len(request.prompt) > LONG_PROMPT:
        console.note(f"reading a prompt of {len(request.prompt):,} characters", "dim")
    warn_of_unreachable_stops(console, request, model.vocabulary)
    fragments = in_order(
        model.stream_fragments(
            request.prompt,
            request.sampling,
            seed=seed,
            n=request.num,
            stop=request.stops,
            unknown=request.unknown,
            scored=request.as_json,
            processes=request.processes,
        )
    )
    if has_default_limit:
        fragments = report_cuts(console, fragments)
    if request.as_json:
        results = to_results(fragments, request, seed)
        for _, record in report.add_to(results) if report else results:
            write_json(console, record)
    else:
        write_text(console, report.follow(fragments) if report else fragments, request)


def check_unlimited(request: SampleRequest) -> None:
    """Raise UsageError for options that need samples with an end."""
    if request.as_json:
        raise UsageError("-l 0 sets no limit, and --json writes a sample when it ends", NEEDS_END)
    if request.novelty:
        raise UsageError("-l 0 sets no limit, and --novelty needs a whole sample", NEEDS_END)
    if request.direction == "backward":
        raise UsageError(
            "-l 0 sets no limit, and --direction backward prints a sample only once it is complete", NEEDS_END
        )
    if request.num > 1:
        raise UsageError(f"-l 0 sets no limit, so the first of -n {request.num} samples never ends", NEEDS_END)


def adapt_to_text(console: Console, file: ModelFile, source: str, request: SampleRequest) -> ModelFile:
    from charlstm.cli.actions.adapt import adapt_model  # reads texts, which would slow down every start

    return adapt_model(console, file, source, request.direction, request.unknown, request.adaptation)


def mix_with_text(
    console: Console, file: ModelFile, averaged: ModelFile | None, source: str, request: SampleRequest
) -> Mixture:
    from charlstm.cli.actions.adapt import read_mixture  # reads texts, which would slow down every start

    return read_mixture(console, file, averaged, source, request.direction, request.unknown)


def fix_units(console: Console, file: ModelFile, path: Path, request: SampleRequest) -> list[Clamp]:
    from charlstm.cli.actions.clamp import read_clamps  # reads texts, which would slow down every start

    return read_clamps(console, file, path, request.clamps, request.direction)


def make_novelty_report(console: Console, file: ModelFile, path: Path) -> NoveltyReport:
    from charlstm.cli.actions.novelty import NoveltyReport  # reads texts, which would slow down every start

    return NoveltyReport(console, file, path)


def warn_of_unreachable_stops(console: Console, request: SampleRequest, vocabulary: Vocabulary) -> None:
    for stop in request.stops:
        if (vocabulary.lookup(stop) < 0).any():
            console.warn(f"--stop {stop!r} has a character that the model never writes")
        elif contains_run(request.prompt, stop, request.sampling.no_repeat, vocabulary):
            console.warn(f"--stop {stop!r} would repeat what the prompt contains, which --no-repeat excludes")


def contains_run(text: Text, part: str, length: int, vocabulary: Vocabulary) -> bool:
    """Return whether a text contains a run of `length` symbols of `part`; not, if `length` is 0."""
    encoding = "utf-8" if vocabulary.level == "char" else "latin-1"
    text, part = (as_bytes(each).decode(encoding, "surrogateescape") for each in (text, part))
    return length > 0 and any(part[start : start + length] in text for start in range(len(part) - length + 1))


def in_order(fragments: Iterable[Fragment]) -> Iterator[Fragment]:
    """Yield the fragments sample by sample: the first sample as it is drawn, the others once it is their turn."""
    waiting: dict[int, list[Fragment]] = defaultdict(list)
    turn = 0
    for fragment in fragments:
        waiting[fragment.index].append(fragment)
        while waiting[turn]:
            ready = waiting.pop(turn)
            yield from ready
            if not ready[-1].stop_reason:
                break
            turn += 1


def report_cuts(console: Console, fragments: Iterable[Fragment]) -> Iterator[Fragment]:
    """Yield the fragments, and warn at the end if samples were cut at the default limit."""
    cut = 0
    for fragment in fragments:
        cut += fragment.stop_reason == "length"
        yield fragment
    if cut:
        console.warn(
            f"{quantity(cut, 'sample')} did not reach the end of a document within {DOCUMENT_LENGTH:,} characters; "
            "-l sets another limit"
        )


def write_text(console: Console, fragments: Iterable[Fragment], request: SampleRequest) -> None:
    """Write each sample with the prompt before it (after it, if written backward) and a newline."""
    prompt, newline = as_bytes(request.prompt) if request.echo else b"", b"\n" if request.newline else b""
    before, after = (b"", prompt + newline) if request.direction == "backward" else (prompt, newline)
    console.write(before)  # before the prefill, which can take a while
    for fragment in fragments:
        console.write(fragment.text)
        if fragment.stop_reason:
            console.write(after)
            if fragment.index + 1 < request.num:
                write_rule(console)
                console.write(before)


def write_rule(console: Console) -> None:
    """Draw a line between samples on a terminal: on stderr, so that stdout has the samples only."""
    if console.can_animate and console.stdout.isatty():
        console.flush()
        console.note("─" * 40, "dim")


def to_results(fragments: Iterable[Fragment], request: SampleRequest, seed: int) -> Iterator[Result]:
    """Yield each sample with its record."""
    text = b""
    for fragment in fragments:
        text += fragment.text
        if fragment.stop_reason:
            record: dict[str, Any] = {
                "text": text.decode("utf-8", "replace"),
                "prompt": as_bytes(request.prompt).decode("utf-8", "replace"),
                "direction": request.direction,
                "index": fragment.index,
                "seed": seed,
                "stop_reason": fragment.stop_reason,
                "mean_log_probability_nats": round(fragment.mean_log_probability, 6) + 0.0,  # not -0.0
            }
            yield text, record
            text = b""


def as_bytes(text: Text) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
