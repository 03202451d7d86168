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

    from charlstm.evaluation import Scores
    from charlstm.model.language_model import LanguageModel
    from charlstm.modelfile import ModelFile
    from charlstm.vocabulary import Ids, Text, Vocabulary

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
    text, what = given_text(console, file, files, encoding, errors) if files else own_part(file, part or "val", path)
    ids = encoded(file, text, what, unknown)
    left_out = len(text) - len(ids)
    folded = int((file.vocabulary.lookup(text) < 0).sum()) - left_out
    if per_char:
        write_characters(console, file, ids)
    else:
        write_figures(
            console,
            file,
            ids,
            text,
            {"model": str(path), "text": what, "characters_left_out": left_out, "characters_folded": folded},
            as_json,
            adaptation if dynamic else None,
        )


def given_text(
    console: Console, file: ModelFile, files: list[str], encoding: str | None = None, errors: str | None = None
) -> tuple[Text, str]:
    """The text of files named on the command line, read as the model's corpus was unless said otherwise."""
    from charlstm.data.corpus import STDIN, read_corpus

    if STDIN in files and not console.piped:
        raise UsageError("- reads stdin, and nothing was piped in")
    own = file.config.data
    reading = replace(own, corpus=tuple(files), encoding=encoding or own.encoding, errors=errors or own.errors)
    return read_corpus(reading, console.stdin).text, ", ".join(files)


def encoded(file: ModelFile, text: Text, what: str, unknown: Unknown) -> Ids:
    """The ids of a text, where `error` spares a character that the model folds. Raises CharlstmError for none."""
    ids = file.vocabulary.encode(text, "fold" if unknown == "error" else unknown)
    if not len(ids):
        raise CharlstmError(f"there is nothing to read: {what} is empty")
    return ids


def own_part(file: ModelFile, part: str, path: Path) -> tuple[Text, str]:
    """A part of the corpus that the model was trained on. Raises CharlstmError if that text is gone or has changed."""
    from charlstm.checkpoint import RunFolder
    from charlstm.data.corpus import read_corpus
    from charlstm.data.tokens import TokenStore

    sources = file.config.data.corpus
    try:
        corpus = read_corpus(file.config.data, RunFolder(path.parent).spooled)
    except UsageError as error:
        raise CharlstmError(
            f"the text that the model was trained on is not to be had: {error.message}",
            "name a file: charlstm eval FILE",
        ) from error
    if corpus.fingerprint != file.corpus.get("fingerprint"):
        raise CharlstmError(
            f"{', '.join(sources)} has changed since the model was trained", "name a file: charlstm eval FILE"
        )
    span = TokenStore.span_of(len(corpus.text), file.config.data.split, part)
    if span.start == span.stop:
        raise UsageError(
            f"--part {part}: the model's corpus has no such part",
            f"it was split {', '.join(map(str, file.config.data.split))}",
        )
    return corpus.text[span], f"{part} part of {', '.join(sources)}"


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
    ids: Ids,
    text: Text,
    about: dict[str, Any],
    as_json: bool,
    adaptation: AdaptationConfig | None,
) -> None:
    from charlstm.evaluation import evaluate

    size = (
        len(text.encode())
        if isinstance(text, str) and not about["characters_left_out"]
        else file.vocabulary.count_bytes(ids)
    )
    model = network(file)
    evaluation = evaluate(model, ids, file.vocabulary.start, size)
    assert evaluation is not None
    figures = {**about, **evaluation.to_dict()}
    if adaptation:
        figures |= dynamic_figures(console, model, ids, file.vocabulary.start, size, adaptation)
    if as_json:
        console.write(json.dumps(figures, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    else:
        console.table({name.replace("_", " "): shown(value) for name, value in figures.items() if value})


def dynamic_figures(
    console: Console, model: LanguageModel, ids: Ids, start: int, size_bytes: int, config: AdaptationConfig
) -> dict[str, float]:
    """The figures of a text under a model that learns from it, those that differ from what `evaluate` gives."""
    from charlstm.adaptation import dynamic_scores
    from charlstm.evaluation import Evaluation

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


def write_characters(console: Console, file: ModelFile, ids: Ids) -> None:
    from charlstm.evaluation import score

    scores = score(network(file), ids, file.vocabulary.start)
    for line in character_lines(file.vocabulary, ids, scores):
        console.write(line)


def character_lines(vocabulary: Vocabulary, ids: Ids, scores: Scores) -> Any:
    pieces = [piece.decode("utf-8", "backslashreplace") for piece in vocabulary.pieces]
    for i, log_p, rank in zip(ids.tolist(), scores.log_probability.tolist(), scores.rank.tolist(), strict=True):
        entry = {"log_probability_nats": round(log_p, 6), "rank": rank, "character": pieces[i]}
        yield json.dumps(entry, ensure_ascii=False).encode() + b"\n"
