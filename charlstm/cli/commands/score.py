"""`charlstm eval --per-char` and `--suspicious`: what each character of a text is worth to a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlstm.console import Console, escape_controls
from charlstm.data.split import Tokens
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Vocabulary

if TYPE_CHECKING:
    from charlstm.evaluation.metrics import Scores

CONTEXT = 30
"""Characters shown on either side of a suspicious one."""


def character_scores(file: ModelFile, ids: Tokens) -> dict[str, Scores]:
    """Of every character given those before it and, with a bidirectional model, given all the others, by the prefix of
    their names in JSON."""
    from charlstm.evaluation.evaluate import score_characters
    from charlstm.model.loading import load_torch_model

    scores = score_characters(load_torch_model(file), ids, file.vocabulary.bos)
    return {"": scores.forward} | ({"both_sides_": scores.both_sides} if scores.both_sides else {})


def write_characters(console: Console, file: ModelFile, ids: Tokens) -> None:
    for line in character_lines(file.vocabulary, ids, character_scores(file, ids)):
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
    return [piece.decode("utf-8", "backslashreplace") for piece in vocabulary.symbols]


@dataclass(frozen=True)
class Suspect:
    """A character that is unlikely where it stands, and what is around it, as text."""

    line: int  # from 1; of a model of lines, blank ones are not counted
    column: int  # from 1
    before: str
    own: str
    after: str
    log_probability: float
    likeliest: str

    def to_json(self) -> bytes:
        entry = {
            "line": self.line,
            "column": self.column,
            "character": self.own,
            "log_probability_nats": round(self.log_probability, 6),
            "likeliest": self.likeliest,
            "before": self.before,
            "after": self.after,
        }
        return json.dumps(entry, ensure_ascii=False).encode()

    def to_text(self, mark: str) -> bytes:
        """Columns with a tab between them, the last one with the character in its context."""
        context = escape_controls(self.before) + mark.format(escape_controls(self.own)) + escape_controls(self.after)
        place = f"{self.line}:{self.column}"
        return f"{place}\t{self.log_probability:.2f}\t{escape_controls(self.likeliest)}\t{context}".encode()


def write_suspicious(console: Console, file: ModelFile, ids: Tokens, count: int, as_json: bool) -> None:
    """The least likely characters, the least likely first: where each stands, and what would be likely there."""
    *_, scores = character_scores(file, ids).values()
    mark = "\x1b[1;31m{}\x1b[0m" if console.uses_color(console.stdout) else "[{}]"
    for suspect in suspects(file.vocabulary, ids.span(0, len(ids)), scores, count):
        console.write((suspect.to_json() if as_json else suspect.to_text(mark)) + b"\n")


def suspects(vocabulary: Vocabulary, text: NDArray[np.integer], scores: Scores, count: int) -> Iterator[Suspect]:
    """So many of a text given as ids [length]; the end of a document is shown as a line's."""
    pieces = labels(vocabulary)
    if vocabulary.end_of_document is not None:
        pieces[vocabulary.end_of_document] = "\n"
    begins = np.concatenate([[0], np.flatnonzero(np.isin(text, [i for i, p in enumerate(pieces) if p == "\n"])) + 1])
    for place in least_likely(scores, count).tolist():
        line = int(np.searchsorted(begins, place, "right"))
        before, after = text[max(place - CONTEXT, 0) : place], text[place + 1 :][:CONTEXT]
        yield Suspect(
            line,
            place - int(begins[line - 1]) + 1,
            "".join(pieces[i] for i in before),
            pieces[text[place]],
            "".join(pieces[i] for i in after),
            float(scores.log_probability[place]),
            pieces[scores.expected[place]],
        )


def least_likely(scores: Scores, count: int) -> NDArray[np.int64]:
    """The places of so many characters."""
    return np.argsort(scores.log_probability, kind="stable")[:count]
