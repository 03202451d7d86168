"""What a program needs to use a model without charlstm, besides its weights: vocabulary, rules, settings."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import charlstm
from charlstm.config import Direction
from charlstm.errors import CharlstmError
from charlstm.storage.model import ModelFile

DESCRIPTION_FORMAT = 1

MODEL_TYPE = "charlstm"
"""By the key model_type, programs tell a description from that of another kind of model."""


def describe_model(file: ModelFile) -> dict[str, Any]:
    """Return the description of a model. It has no path and no name of a folder."""
    vocabulary, data, card = file.vocabulary, file.config.data, file.config.card
    return {
        "model_type": MODEL_TYPE,
        "format": DESCRIPTION_FORMAT,
        "exported_by": f"charlstm {charlstm.__version__}",
        "trained_by": f"charlstm {file.version}" if file.version else None,
        "model": asdict(file.config.model),
        "size": vocabulary.size,
        "vocabulary": vocabulary.to_dict(),
        "bos": vocabulary.bos,
        "unknown": vocabulary.unknown,
        "end_of_document": vocabulary.end_of_document,
        "text": {name: getattr(data, name) for name in ("newlines", "normalize", "lower")},
        "rules": list_rules(file),
        "corpus": dict(file.corpus),
        "metrics": dict(file.metrics),
        "about": card.about,
        "license": card.license,
    }


def is_description(path: Path) -> bool:
    """Return whether a file is the description of a model as JSON. Raises CharlstmError if it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CharlstmError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("model_type") == MODEL_TYPE


def list_rules(file: ModelFile) -> list[str]:
    """Return, in words, how the model reads and writes a text."""
    vocabulary = file.vocabulary
    symbols = "bytes 0 to 255" if vocabulary.level == "byte" else "characters in vocabulary.characters, in order"
    special = [name for name in ("unknown", "end_of_document") if getattr(vocabulary, name) is not None]
    rules = [
        f"The ids are the {symbols}{''.join(f', then {name}' for name in special)}.",
        "Read the id bos first, with zeros for all states; then every id of the text. The logits after an id are those "
        "of the next one; softmax makes them probabilities.",
        "Prepare a text as the settings in text say: newlines lf converts CR LF and CR to LF, normalize is a Unicode "
        "normalization form, lower is lower case.",
    ]
    if vocabulary.unknown is not None:
        rules.append("unknown is the id of every character that is not in the vocabulary. Never sample it.")
    if vocabulary.end_of_document is not None:
        rules.append(
            "end_of_document is bos and separates documents: it resets the state before it is read. Once it is drawn, "
            "the text has ended."
        )
    return rules


def list_graph_rules(file: ModelFile, direction: Direction | None, *, sequence: bool) -> list[str]:
    """Return how the graph is used. A direction of None reads both sides."""
    rules = []
    if direction == "backward":
        rules.append("The model reads a text from its end: reverse the ids of a prompt and those that are sampled.")
    if direction is None:
        rules.append(
            "The ids of a sequence are bos, the text and bos. Logits k are those of id k + 1, given all the others."
        )
        return rules
    if sequence and file.vocabulary.end_of_document is not None:
        rules.append("end_of_document resets the state only as the first id: give each document as a sequence.")
    rules.append("The outputs next_* are the inputs of the same name after the last id that was read.")
    if file.config.model.bigrams:
        rules.append("last_symbol is the last id that was read, plus 1; 0 for none.")
    return rules
