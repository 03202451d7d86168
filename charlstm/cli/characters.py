"""`charlstm eval --per-char` and `--suspicious`: what each character of a text is worth to a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlstm.console import Console, printable
from charlstm.data.tokens import Tokens
from charlstm.modelfile import ModelFile
from charlstm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from charlstm.evaluation.figures import Scores

CONTEXT = 30
"""Characters shown on either side of a suspicious one."""


def scores_of(file: ModelFile, ids: Tokens) -> dict[str, Scores]:
    """Of every character given those before it and, with a bidirectional model, given all the others, by the prefix of
    their names in JSON."""
    from charlstm.evaluation.both_ways import score_both
    from charlstm.evaluation.models import network
    from charlstm.evaluation.one_way import score
    from charlstm.model.language_model import LanguageModel

    model = network(file)
    if isinstance(model, LanguageModel):
        return {"": score(model, ids, file.vocabulary.start)}
    forward, both = score_both(model, ids, file.vocabulary.start)
    return {"": forward, "both_sides_": both}


def write_characters(console: Console, file: ModelFile, ids: Tokens) -> None:
    for line in character_lines(file.vocabulary, ids, scores_of(file, ids)):
        console.write(line)


def character_lines(vocabulary: Vocabulary, ids: Tokens, scores: dict[str, Scores]) -> Iterator[bytes]:
    pieces = labels(vocabulary)
    own = (i for chunk in ids.chunks() for i in chunk.tolist())
    for place, i in enumerate(own):
        entry: dict[str, Any] = {}
        for prefix, found in scores.items():
            entry[f"{prefix}log_probability_nats"] = round(float(found.log_probability[place]), 6)
            entry[f"{prefix}rank"] = int(found.rank[place])
        yield json.dumps({**entry, "character": pieces[i]}, ensure_ascii=False).encode() + b"\n"


def labels(vocabulary: Vocabulary) -> list[str]:
    return [piece.decode("utf-8", "backslashreplace") for piece in vocabulary.pieces]


def write_suspicious(console: Console, file: ModelFile, ids: Tokens, count: int, as_json: bool) -> None:
    """The least likely characters, the least likely first: where each stands, and what would be likely there."""
    *_, scores = scores_of(file, ids).values()
    text = ids.span(0, len(ids))
    starts = line_starts(file.vocabulary, text)
    for place in suspects(scores, count).tolist():
        line = int(np.searchsorted(starts, place, "right"))
        column = place - int(starts[line - 1]) + 1
        console.write(suspect(console, file.vocabulary, text, scores, place, line, column, as_json) + b"\n")


def suspects(scores: Scores, count: int) -> NDArray[np.int64]:
    """The places of the least likely characters."""
    return np.argsort(scores.log_probability, kind="stable")[:count]


def line_starts(vocabulary: Vocabulary, text: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where lines begin, and documents."""
    ends = text == int(vocabulary.lookup("\n" if vocabulary.unit == "char" else b"\n")[0])
    if vocabulary.boundary is not None:
        ends |= text == vocabulary.boundary
    return np.concatenate([[0], np.flatnonzero(ends) + 1])


def suspect(
    console: Console,
    vocabulary: Vocabulary,
    text: NDArray[np.integer],
    scores: Scores,
    place: int,
    line: int,
    column: int,
    as_json: bool,
) -> bytes:
    """A line about one of them."""
    pieces = labels(vocabulary)
    before, own, after = (
        "".join(pieces[i] for i in part)
        for part in (text[max(place - CONTEXT, 0) : place], text[place : place + 1], text[place + 1 :][:CONTEXT])
    )
    log_p, likeliest = float(scores.log_probability[place]), pieces[scores.likeliest[place]]
    if as_json:
        entry = {
            "line": line,
            "column": column,
            "character": own,
            "log_probability_nats": round(log_p, 6),
            "likeliest": likeliest,
            "before": before,
            "after": after,
        }
        return json.dumps(entry, ensure_ascii=False).encode()
    marked = "\x1b[1;31m{}\x1b[0m" if console.coloured(console.stdout) else "[{}]"
    context = printable(before) + marked.format(printable(own)) + printable(after)
    return f"{line}:{column}\t{log_p:.2f}\t{printable(likeliest)}\t{context}".encode()
