"""`charlstm eval`: how well a model predicts a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from charlstm.cli.options import ModelOption
from charlstm.config import AdaptationConfig, Unknown
from charlstm.console import Console, printable
from charlstm.errors import CharlstmError, UsageError
from charlstm.runs import find_model
from charlstm.settings import Settings, fill, from_environment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from charlstm.data.corpus import Corpus
    from charlstm.data.tokens import Tokens
    from charlstm.evaluation.figures import Scores
    from charlstm.model.language_model import LanguageModel
    from charlstm.modelfile import ModelFile
    from charlstm.vocabulary import Vocabulary

Part = Literal["train", "val", "test"]
Errors = Literal["strict", "replace"]


def eval_(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts to score; - is stdin. (default: a part of the corpus that the model was trained on)",
            metavar="[FILE ...]",
            show_default=False,
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    model: ModelOption = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of the files. (default: as the model's corpus)")
    ] = None,
    errors: Annotated[
        Errors | None,
        typer.Option(help="A byte that is not text. (default: as for the model's corpus)", show_default=False),
    ] = None,
    part: Annotated[
        Part | None, typer.Option(help="Which part of the model's own corpus. (default val)", show_default=False)
    ] = None,
    unknown: Annotated[Unknown, typer.Option(help="Characters that the model has never seen.")] = "error",
    per_char: Annotated[
        bool, typer.Option("--per-char", help="Write a JSON object for each character: its log-probability and rank.")
    ] = False,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Also score the text with a model that goes on learning as it reads.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Measure how well a model predicts a text."""
    if part is not None and files:
        raise UsageError("--part is of the model's own corpus: give it or a FILE, not both")
    if dynamic and per_char:
        raise UsageError("--per-char writes the scores of the model as it is: give it or --dynamic, not both")
    if settings and not dynamic:
        raise UsageError(f"{next(iter(settings.values())).where} does nothing without --dynamic")
    adaptation = fill(AdaptationConfig, from_environment(console.environ, "adaptation") | settings, "adaptation")
    path = find_model(model, console.environ)
    if model is None and (as_json or per_char):  # the table names it
        console.note(printable(str(path)), "dim")

    from charlstm.modelfile import ModelFile
    from charlstm.processor import prepare

    prepare()
    file = ModelFile.load(path)
    ids, about = (
        given_text(console, file, files, unknown, encoding, errors) if files else own_part(console, file, part, path)
    )
    if per_char:
        write_characters(console, file, ids)
    else:
        write_figures(console, file, ids, {"model": str(path), **about}, as_json, adaptation if dynamic else None)


def given_text(
    console: Console,
    file: ModelFile,
    files: list[str],
    unknown: Unknown,
    encoding: str | None = None,
    errors: str | None = None,
) -> tuple[Tokens, dict[str, Any]]:
    """The text of files named on the command line, read as the corpus was unless said otherwise; its figures."""
    from charlstm.data.given import GivenText
    from charlstm.data.spool import STDIN
    from charlstm.data.tokens import Tokens

    if STDIN in files and not console.piped:
        raise UsageError("- reads stdin, and nothing was piped in")
    own = file.config.data
    reading = replace(own, corpus=tuple(files), encoding=encoding or own.encoding, errors=errors or own.errors)
    text = GivenText(reading, file.vocabulary, unknown, console.stdin)
    for remark in text.remarks:
        console.note(printable(remark), "dim")
    left = {"characters_left_out": text.left_out, "characters_folded": text.folded}
    return Tokens(text.ids), {"text": ", ".join(files), "bytes": text.bytes, **left}


def own_part(console: Console, file: ModelFile, part: Part | None, path: Path) -> tuple[Tokens, dict[str, Any]]:
    """A part of the corpus that the model was trained on, that to validate with unless named, and its figures.

    Raises CharlstmError if that text is gone or has changed.
    """
    corpus = own_corpus(console, file, path)
    name = part or "val"
    tokens = corpus.parts(file.config.data.split).part(name)
    if not len(tokens):
        raise UsageError(
            f"--part {name}: the model's corpus has no such part",
            f"it was split {', '.join(map(str, file.config.data.split))}",
        )
    about = {
        "text": f"{name} part of {', '.join(file.config.data.corpus)}",
        "bytes": sum(map(file.vocabulary.count_bytes, tokens.chunks())),
        "characters_folded": count(tokens, file.vocabulary.unknown),
    }
    return tokens, about


def count(tokens: Tokens, symbol: int | None) -> int:
    """How often a symbol stands in a text."""
    return 0 if symbol is None else sum(int((chunk == symbol).sum()) for chunk in tokens.chunks())


def own_corpus(console: Console, file: ModelFile, path: Path) -> Corpus:
    """The corpus that the model was trained on. Raises CharlstmError if that text is gone or has changed."""
    from charlstm.checkpoint import RunFolder
    from charlstm.cli.reading import read

    sources = file.config.data.corpus
    try:
        corpus = read(console, file.config.data, RunFolder(path.parent).spooled, file.vocabulary)
    except UsageError as error:
        raise CharlstmError(
            f"the text that the model was trained on is not to be had: {error.message}",
            "name a file: charlstm eval FILE",
        ) from error
    if corpus.fingerprint != file.corpus.get("fingerprint"):
        raise CharlstmError(
            f"{', '.join(sources)} has changed since the model was trained", "name a file: charlstm eval FILE"
        )
    return corpus


def network(file: ModelFile) -> LanguageModel:
    """The model on the fastest device there is, in float32."""
    from charlstm.model.device import choose
    from charlstm.model.language_model import LanguageModel

    boundary = file.vocabulary.boundary
    device = choose(file.config.model, precision="fp32", resets=boundary is not None)
    model = LanguageModel(file.config.model, file.vocabulary.size, device.engine, boundary=boundary)
    model.load_weights(file.weights)
    return model.to(device.name)


def write_figures(
    console: Console,
    file: ModelFile,
    ids: Tokens,
    about: dict[str, Any],
    as_json: bool,
    adaptation: AdaptationConfig | None,
) -> None:
    from charlstm.evaluation.one_way import evaluate

    model, size = network(file), about.pop("bytes")
    evaluation = evaluate(model, ids, file.vocabulary.start, size)
    assert evaluation is not None
    figures = {**about, **evaluation.to_dict(), "end_symbols": count(ids, file.vocabulary.boundary)}
    if adaptation:
        figures |= dynamic_figures(console, model, ids, file.vocabulary.start, size, adaptation)
    if as_json:
        console.write(json.dumps(figures, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    else:
        console.table({name.replace("_", " "): shown(value) for name, value in figures.items() if value})


def dynamic_figures(
    console: Console, model: LanguageModel, ids: Tokens, start: int, size_bytes: int, config: AdaptationConfig
) -> dict[str, float]:
    """The figures of a text under a model that learns from it, those that differ from what `evaluate` gives."""
    from charlstm.adaptation import dynamic_scores
    from charlstm.evaluation.figures import Evaluation

    scores = watched(console, dynamic_scores(model, ids, start, config), len(ids))
    nats = -sum(float(log_p.sum(dtype="float64")) for log_p in scores)
    figures = Evaluation(len(ids), size_bytes, nats).to_dict()
    return {f"dynamic_{name}": value for name, value in figures.items() if name not in ("characters", "bytes")}


def watched(console: Console, windows: Iterator[NDArray[np.float32]], length: int) -> Iterator[NDArray[np.float32]]:
    """The windows of a text of this length, with their progress shown as they come."""
    read = 0
    with console.progress() as bar:
        for window in windows:
            yield window
            read += len(window)
            bar.update(read / length, f"adapting to {length:,} characters")


def shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else printable(value)


def write_characters(console: Console, file: ModelFile, ids: Tokens) -> None:
    from charlstm.evaluation.one_way import score

    scores = score(network(file), ids, file.vocabulary.start)
    for line in character_lines(file.vocabulary, ids, scores):
        console.write(line)


def character_lines(vocabulary: Vocabulary, ids: Tokens, scores: Scores) -> Iterator[bytes]:
    pieces = [piece.decode("utf-8", "backslashreplace") for piece in vocabulary.pieces]
    own = (i for chunk in ids.chunks() for i in chunk.tolist())
    for i, log_p, rank in zip(own, scores.log_probability.tolist(), scores.rank.tolist(), strict=True):
        entry = {"log_probability_nats": round(log_p, 6), "rank": rank, "character": pieces[i]}
        yield json.dumps(entry, ensure_ascii=False).encode() + b"\n"
