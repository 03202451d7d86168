"""`eval --by`: where the loss of a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from charlstm.cli.actions.eval import read_text_to_score
from charlstm.cli.commands.eval import By, TextSource
from charlstm.cli.findings import format_table
from charlstm.cli.output import write_json
from charlstm.cli.texts import read_own_corpus
from charlstm.console import Console
from charlstm.data.split import Tokens
from charlstm.errors import UsageError
from charlstm.inspection.categories import loss_by_category
from charlstm.inspection.ngrams import MAX_ORDER, NgramModel, share_avoided
from charlstm.inspection.text import ReadText
from charlstm.runtime import retain_freed_memory
from charlstm.storage.locate import name_model
from charlstm.storage.model import ModelFile

MAX_CHARACTERS = 1_000_000
"""Characters of the text in which categories and n-grams are looked for; the resets take all of them."""

MAX_TRAINING_CHARACTERS = 10_000_000
"""Characters of the training part that n-grams are counted in."""


def write_losses(console: Console, path: Path, source: TextSource, by: By, *, as_json: bool) -> None:
    """Write the loss of a model on a text, by category."""
    retain_freed_memory()
    file = ModelFile.load(path)
    tokens, about = read_text_to_score(console, file, path, source)
    if by == "detector":
        rows = by_detector(console, file, tokens)
    elif by == "reset":
        rows = by_reset(file, tokens)
    else:
        rows = by_ngram(console, file, path, tokens)
    if as_json:
        write_json(console, {"model": name_model(path), "text": about["text"], "by": by, "rows": rows})
        return
    names = list(rows[0])
    table = [[name.replace("_", " ") for name in names], *([show_value(row[name]) for name in names] for row in rows)]
    console.write("".join(f"{line}\n" for line in format_table(table)).encode())


def show_value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def by_detector(console: Console, file: ModelFile, tokens: Tokens) -> list[dict[str, Any]]:
    """Return the loss by the detectors before a character, and by the kind of the character."""
    ids, log_probabilities = score_beginning(console, file, tokens)
    text = ReadText.from_ids(ids, file.vocabulary)
    return [each.to_dict() for each in loss_by_category(text.characters, text.sum_by_character(log_probabilities))]


def by_reset(file: ModelFile, tokens: Tokens) -> list[dict[str, Any]]:
    """Return the loss by characters since the state was reset. Raises UsageError for too short a text."""
    from charlstm.evaluation.resets import PERIOD, loss_since_reset
    from charlstm.model.loading import load_language_model

    found = loss_since_reset(load_language_model(file), tokens, file.vocabulary.bos)
    if not found:
        raise UsageError(f"--by reset needs a text of at least {PERIOD} characters, and this one has {len(tokens):,}")
    return [
        {
            "characters_since_reset": str(each.first) if each.first == each.last else f"{each.first} to {each.last}",
            "characters": each.characters,
            "loss_nats": round(each.loss_nats, 5),
        }
        for each in found
    ]


def by_ngram(console: Console, file: ModelFile, path: Path, tokens: Tokens) -> list[dict[str, Any]]:
    """Return the share of the errors of the model that n-gram models of its training text would not have made."""
    ids, log_probabilities = score_beginning(console, file, tokens)
    corpus, _ = read_own_corpus(console, file, path)
    part = corpus.split(file.config.data.split).part("train")
    length = min(len(part), MAX_TRAINING_CHARACTERS)
    if length < len(part):
        console.note(f"n-grams are counted in the first {length:,} of {len(part):,} characters of the training part")
    errors = int((log_probabilities < np.log(0.5)).sum())
    ngrams = NgramModel(part.span(0, length).astype(np.int64))
    return [
        {
            "n": order,
            "errors": errors,
            "share_of_characters": round(errors / len(ids), 5),
            "avoided_by_ngram": round(share_avoided(log_probabilities, ngrams, ids, order), 5),
        }
        for order in range(1, MAX_ORDER + 1)
    ]


def score_beginning(console: Console, file: ModelFile, tokens: Tokens) -> tuple[Any, Any]:
    """Return the first symbols of a text and their log-probabilities, [T] each."""
    from charlstm.evaluation.evaluate import score_characters
    from charlstm.model.loading import load_language_model

    length = min(len(tokens), MAX_CHARACTERS)
    if length < len(tokens):
        console.note(f"reading the first {length:,} of {len(tokens):,} characters")
    ids = tokens.span(0, length)
    scores = score_characters(load_language_model(file), ids, file.vocabulary.bos)
    return ids.astype(np.int64), scores.forward.log_probability
