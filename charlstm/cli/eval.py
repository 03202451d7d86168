"""`charlstm eval`: how well a model predicts a text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from charlstm.cli.options import ModelOption
from charlstm.config import Unknown
from charlstm.console import Console, printable
from charlstm.errors import CharlstmError, UsageError
from charlstm.runs import find_model
from charlstm.settings import Settings

if TYPE_CHECKING:
    from charlstm.evaluation import Scores
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
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Measure how well a model predicts a text."""
    if part is not None and files:
        raise UsageError("--part is of the model's own corpus: give it or a FILE, not both")
    path = find_model(model, console.environ)
    if model is None and (as_json or per_char):  # the table names it
        console.note(printable(str(path)), "dim")

    from charlstm.modelfile import ModelFile
    from charlstm.processor import prepare

    prepare()
    file = ModelFile.load(path)
    text, what = given_text(console, file, files, encoding, errors) if files else own_part(file, part or "val", path)
    ids = file.vocabulary.encode(text, "fold" if unknown == "error" else unknown)
    left_out = len(text) - len(ids)
    folded = int((file.vocabulary.lookup(text) < 0).sum()) - left_out
    if not len(ids):
        raise CharlstmError(f"there is nothing to score: {what} is empty")
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
        )


def given_text(
    console: Console, file: ModelFile, files: list[str], encoding: str | None, errors: str | None
) -> tuple[Text, str]:
    """The text of files named on the command line, read as the model's corpus was unless said otherwise."""
    from charlstm.data.corpus import STDIN, read_corpus

    if STDIN in files and not console.piped:
        raise UsageError("- reads stdin, and nothing was piped in")
    own = file.config.data
    reading = replace(own, corpus=tuple(files), encoding=encoding or own.encoding, errors=errors or own.errors)
    return read_corpus(reading, console.stdin).text, ", ".join(files)


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


def network(file: ModelFile) -> Any:
    """The model on the fastest device there is, in float32."""
    from charlstm.model.device import choose
    from charlstm.model.language_model import LanguageModel

    device = choose(file.config.model, precision="fp32")
    model = LanguageModel(file.config.model, file.vocabulary.size, device.engine)
    model.load_weights(file.weights)
    return model.to(device.name)


def write_figures(
    console: Console, file: ModelFile, ids: Ids, text: Text, about: dict[str, Any], as_json: bool
) -> None:
    from charlstm.evaluation import evaluate

    size = (
        len(text.encode())
        if isinstance(text, str) and not about["characters_left_out"]
        else file.vocabulary.count_bytes(ids)
    )
    evaluation = evaluate(network(file), ids, file.vocabulary.start, size)
    assert evaluation is not None
    figures = {**about, **evaluation.to_dict()}
    if as_json:
        console.write(json.dumps(figures, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    else:
        console.table({name.replace("_", " "): shown(value) for name, value in figures.items() if value})


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
