"""Score a text with a model, or compare models line by line, and write the records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.cli.commands.score import ScoreRequest
from charlstm.cli.output import escape_field, write_json, write_row
from charlstm.console import Console, escape_controls
from charlstm.data.external import ExternalText
from charlstm.data.split import Tokens
from charlstm.data.text import CorpusReader
from charlstm.evaluation.metrics import Scores, TextScores
from charlstm.evaluation.streams import Places
from charlstm.runtime import retain_freed_memory
from charlstm.storage.model import ModelFile
from charlstm.storage.spool import Spool
from charlstm.vocabulary import Text, Vocabulary

CONTEXT = 30
"""Characters shown on either side of one of the worst."""


@dataclass(frozen=True)
class LocatedText:
    """A text as a model reads it, with the place of each of its n symbols in the file."""

    ids: NDArray[np.unsignedinteger]  # [n]
    offsets: Places  # [n], in characters from 0; bytes, for a model of bytes
    lines: Places  # [n], from 1
    columns: Places  # [n], from 1
    content: list[str]
    """The lines of the file, without their newlines."""


def write_scores(console: Console, request: ScoreRequest) -> None:
    """Write the records of the request to stdout."""
    retain_freed_memory()
    spool = Spool.from_stdin([request.file], console.stdin)
    files = {name: ModelFile.load(path) for name, path in request.models.items()}
    texts = {name: locate_symbols(console, file, request, spool) for name, file in files.items()}
    scored = {name: (text, score_text(files[name], text)) for name, text in texts.items()}
    if len(scored) > 1:
        write_comparison(console, scored, request.as_json)
        return
    ((name, file),) = files.items()
    text, scores = scored[name]
    if request.by_line:
        write_lines(console, text, scores, request)
    else:
        write_characters(console, file.vocabulary, text, scores, request)


def score_text(file: ModelFile, text: LocatedText) -> TextScores:
    from charlstm.evaluation.evaluate import score_characters
    from charlstm.model.loading import load_torch_model

    return score_characters(load_torch_model(file), Tokens(text.ids), file.vocabulary.bos)


def locate_symbols(console: Console, file: ModelFile, request: ScoreRequest, spool: Spool | None) -> LocatedText:
    """Read the file as the model's corpus was read, and find the place of each symbol."""
    data = file.config.data.for_plain_text()
    encoding, errors = request.encoding or data.encoding, request.errors or data.errors
    config = replace(data, corpus=(request.file,), encoding=encoding, errors=errors)
    external = ExternalText(config, file.vocabulary, request.unknown, spool.open() if spool else None)
    for note in external.notes:
        console.note(escape_controls(note), "dim")
    chunks = list(CorpusReader(config, spool).read_chunks())
    text: Text = b"".join(c for c in chunks if isinstance(c, bytes)) or "".join(c for c in chunks if isinstance(c, str))
    codes = file.vocabulary.codes(text)
    newlines = codes == ord("\n")
    offsets = find_offsets(newlines, config.document)
    if request.unknown == "skip":
        within = offsets[offsets < len(codes)]
        is_end = newlines[within] if config.document == "line" else np.zeros(len(within), np.bool_)
        known = (file.vocabulary.lookup_codes(codes)[within] >= 0) | is_end
        offsets = np.concatenate([within[known], offsets[len(within) :]])
    ids = Tokens(external.ids).span(0, len(external.ids))
    assert len(ids) == len(offsets)
    starts = np.concatenate([[0], np.flatnonzero(newlines) + 1])
    lines = np.searchsorted(starts, offsets, "right")
    decoded = text if isinstance(text, str) else text.decode("utf-8", "replace")
    return LocatedText(ids, offsets, lines, offsets - starts[lines - 1] + 1, decoded.split("\n"))


def find_offsets(newlines: NDArray[np.bool_], document: str) -> Places:
    """Return the offset of each symbol in a text, given which characters are newlines [length].

    The end of a document is at the newline that it replaces, or at the end of the text. Blank lines are not documents.
    """
    length = len(newlines)
    offsets = np.arange(length)
    if document == "stream" or not length:
        return offsets
    if document == "line":
        blank = newlines & np.concatenate([[True], newlines[:-1]])
        return np.concatenate([offsets[~blank], [] if newlines[-1] else [length]]).astype(np.int64)
    return np.concatenate([offsets[: length - int(newlines[-1])], [length - int(newlines[-1])]])


def name_symbols(vocabulary: Vocabulary, *, escaped: bool) -> list[str]:
    """Return each symbol as text. A byte that is not text is shown as \\xNN, the end of a document as a newline.

    escaped: escape control characters and backslashes, for tab-separated records.
    """
    symbols = list(vocabulary.symbols)
    if vocabulary.end_of_document is not None:
        symbols[vocabulary.end_of_document] = b"\n"
    names = [symbol.decode("utf-8", "backslashreplace") for symbol in symbols]
    if not escaped:
        return names
    return [
        escape_field(name) if name.encode() == symbol else name for name, symbol in zip(names, symbols, strict=True)
    ]


def write_characters(
    console: Console, vocabulary: Vocabulary, text: LocatedText, scores: TextScores, request: ScoreRequest
) -> None:
    """Write a record for each character, or for the least likely ones with their context."""
    names = name_symbols(vocabulary, escaped=not request.as_json)
    best_known = scores.both_sides or scores.forward
    places: Iterable[int] = range(len(text.ids))
    if request.worst:
        places = find_least_likely(best_known, request.worst).tolist()
    if not request.as_json:
        header = ["offset", "line", "column", "character", "log_probability_nats", "rank"]
        header += ["both_sides_log_probability_nats", "both_sides_rank"] if scores.both_sides else []
        write_row(console, header + (["expected", "context"] if request.worst else []))
    mark = "\x1b[1;31m{}\x1b[0m" if console.uses_color(console.stdout) else "[{}]"
    for place in places:
        record = describe_character(names, text, scores, place)
        if request.worst:
            record |= describe_context(names, text, best_known, place)
        if request.as_json:
            write_json(console, record)
        else:
            write_row(console, format_row(record, mark))


def find_least_likely(scores: Scores, count: int) -> Places:
    """Return the places of the `count` least likely characters, the least likely first."""
    return np.argsort(scores.log_probability, kind="stable")[:count]


def describe_character(names: list[str], text: LocatedText, scores: TextScores, place: int) -> dict[str, Any]:
    record: dict[str, Any] = {
        "offset": int(text.offsets[place]),
        "line": int(text.lines[place]),
        "column": int(text.columns[place]),
        "character": names[text.ids[place]],
        "log_probability_nats": round_score(scores.forward.log_probability[place]),
        "rank": int(scores.forward.rank[place]),
    }
    if scores.both_sides:
        record["both_sides_log_probability_nats"] = round_score(scores.both_sides.log_probability[place])
        record["both_sides_rank"] = int(scores.both_sides.rank[place])
    return record


def round_score(nats: float) -> float:
    """Return a score with six digits, and 0.0 for one that rounds to -0.0."""
    return round(float(nats), 6) + 0.0


def describe_context(names: list[str], text: LocatedText, scores: Scores, place: int) -> dict[str, Any]:
    before, after = text.ids[max(place - CONTEXT, 0) : place], text.ids[place + 1 :][:CONTEXT]
    return {
        "expected": names[scores.expected[place]],
        "before": "".join(names[i] for i in before),
        "after": "".join(names[i] for i in after),
    }


def format_row(record: dict[str, Any], mark: str) -> list[str]:
    """Return the fields of a record of escaped names. The context is one field, with the character marked in it."""
    fields = [
        f"{value:.6f}" if isinstance(value, float) else str(value)
        for key, value in record.items()
        if key not in ("before", "after")
    ]
    if "before" in record:
        fields.append(record["before"] + mark.format(record["character"]) + record["after"])
    return fields


@dataclass(frozen=True)
class LineScore:
    """A line with the sum of the log-probabilities of its characters, the end of the line included."""

    characters: int
    log_probability: float

    @property
    def loss_nats(self) -> float:
        return -self.log_probability / self.characters


def sum_lines(text: LocatedText, scores: Scores) -> dict[int, LineScore]:
    """Return the score of each line that has symbols, by line number."""
    numbers, first = np.unique(text.lines, return_index=True)
    sums = np.add.reduceat(scores.log_probability.astype(np.float64), first)
    counts = np.diff(np.append(first, len(text.lines)))
    return {
        int(number): LineScore(int(count), float(total))
        for number, count, total in zip(numbers, counts, sums, strict=True)
    }


def write_lines(console: Console, text: LocatedText, scores: TextScores, request: ScoreRequest) -> None:
    """Write a record for each line, or for the lines with the highest loss."""
    found = sum_lines(text, scores.forward)
    numbers: Iterable[int] = found
    if request.worst:
        numbers = sorted(found, key=lambda number: -found[number].loss_nats)[: request.worst]
    if not request.as_json:
        write_row(console, ["line", "characters", "loss_nats", "text"])
    for number in numbers:
        line, content = found[number], text.content[number - 1]
        if request.as_json:
            loss = round_score(line.loss_nats)
            write_json(console, {"line": number, "characters": line.characters, "loss_nats": loss, "text": content})
        else:
            write_row(
                console,
                [str(number), str(line.characters), f"{round_score(line.loss_nats):.6f}", escape_field(content)],
            )


def write_comparison(console: Console, scored: dict[str, tuple[LocatedText, TextScores]], as_json: bool) -> None:
    """Write, for each line, the model with the highest likelihood and its margin over the second."""
    if not as_json:
        write_row(console, ["line", "characters", "best", "margin_nats", "text"])
    for number, content, lines in align_lines(scored):
        ranked = sorted(lines, key=lambda name: -lines[name].log_probability)
        best, second = ranked[:2]
        margin = lines[best].log_probability - lines[second].log_probability
        characters = lines[best].characters
        if as_json:
            record = {"line": number, "characters": characters, "best": best, "margin_nats": round(margin, 6)}
            losses = {name: round_score(line.loss_nats) for name, line in lines.items()}
            write_json(console, {**record, "loss_nats": losses, "text": content})
        else:
            write_row(
                console, [str(number), str(characters), escape_field(best), f"{margin:.6f}", escape_field(content)]
            )


def align_lines(
    scored: dict[str, tuple[LocatedText, TextScores]],
) -> Iterator[tuple[int, str, dict[str, LineScore]]]:
    """Yield the number, the text and the scores by model of each line that every model has scored.

    A model trained with --document line skips blank lines.
    """
    by_model = {name: sum_lines(text, scores.forward) for name, (text, scores) in scored.items()}
    content = next(iter(scored.values()))[0].content
    for number in sorted(set.intersection(*map(set, by_model.values()))):
        yield number, content[number - 1], {name: lines[number] for name, lines in by_model.items()}
