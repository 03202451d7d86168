"""A model as a page of HTML that writes text in a browser: one file, which makes no network requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import charlstm
from charlstm.architecture import count_parameters
from charlstm.cells import CELLS
from charlstm.config import Direction
from charlstm.export.integers import tabulate_weights
from charlstm.inspection.palette import PALETTES
from charlstm.pages import compress_bytes, escape_json, escape_line, escape_prose, fill_template, hash_source
from charlstm.storage.model import ModelFile, name_sources
from charlstm.vocabulary import CharVocabulary, Vocabulary
from charlstm.wording import quantity

SOURCES = Path(__file__).with_name("web")

SCRIPTS = ("arithmetic.js", "cells.js", "network.js", "random.js", "sampling.js", "page.js")
"""The script of the page is these files in this order."""


def render_writing_page(file: ModelFile, name: str, direction: Direction = "forward") -> str:
    """Return the page. The same model, name and version make the same page.

    name: of the model, as `find_title` finds it.
    direction: in which the page writes; "backward" needs a bidirectional model.

    Raises UsageError for a direction that the model does not have.
    """
    half, about = file.select_direction(direction), file.config.card.about
    table = tabulate_weights(half)
    parts = {
        "policy": format_page_policy(),
        "version": charlstm.__version__,
        "name": escape_line(name),
        "about": f'<p class="about" dir="auto">{escape_prose(about)}</p>' if about else "",
        "facts": "\n".join(
            f"<div><dt>{escape_line(term)}</dt><dd>{escape_line(fact)}</dd></div>"
            for term, fact in state_facts(file, direction)
        ),
        "style": read_style(),
        "model": escape_json({**describe_network(half, direction), "weights": table.entries}),
        "weights": compress_bytes(bytes(table.block)),
        "script": read_script(),
    }
    return fill_template((SOURCES / "page.html").read_text("utf-8"), parts)


@cache
def read_style() -> str:
    return (SOURCES / "page.css").read_text("utf-8")


@cache
def read_script() -> str:
    return "".join((SOURCES / name).read_text("utf-8") for name in SCRIPTS)


def format_page_policy() -> str:
    """Return the content security policy of the page: its own style and script run, and nothing is loaded.

    It is in the page; a server can send it as a header, too.
    """
    style, script = map(hash_source, (read_style(), read_script()))
    return f"default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'"


def describe_network(half: ModelFile, direction: Direction) -> dict[str, Any]:
    """Return the settings that the script needs: of the network, the vocabulary, the prompt and the samples."""
    model, data, vocabulary = half.config.model, half.config.data, half.vocabulary
    return {
        "direction": direction,
        "cell": model.cell,
        "activation": model.activation,
        "layers": model.layers,
        "hidden": model.hidden,
        "states": len(CELLS[model.cell].state),
        "between": model.between,
        "head": model.head,
        "zoneout": model.zoneout,
        "level": vocabulary.level,
        "characters": vocabulary.characters if isinstance(vocabulary, CharVocabulary) else "",
        "unknown": vocabulary.unknown,
        "endOfDocument": vocabulary.end_of_document,
        "bos": vocabulary.bos,
        "replacement": vocabulary.replacement,
        "normalize": data.normalize,
        "lower": data.lower,
        "newlines": data.newlines,
        "length": half.default_length,
        "palettes": PALETTES,
    }


def state_facts(file: ModelFile, direction: Direction) -> Iterator[tuple[str, str]]:
    """Yield what the page says about the model: terms with their facts."""
    model, vocabulary = file.config.model, file.vocabulary
    one_direction = replace(model, bidirectional=False)
    parameters = count_parameters(one_direction, vocabulary.size)
    layers = f"{quantity(model.layers, 'layer')} of {model.hidden:,} units"
    yield "Network", f"{model.cell}, {layers}, {parameters:,} parameters, {describe_symbols(vocabulary)}"
    if loss := describe_loss(file.metrics, direction, vocabulary.level):
        yield "Loss", loss
    size = file.corpus.get("characters")
    text = [", ".join(name_sources(file.config.data)), f"{size:,} characters" if isinstance(size, int) else ""]
    if any(text):
        yield "Trained on", ", ".join(filter(None, text))
    if file.config.card.license:
        yield "License", file.config.card.license


def describe_symbols(vocabulary: Vocabulary) -> str:
    """Return what the model reads and writes: bytes, or how many different characters."""
    if isinstance(vocabulary, CharVocabulary):
        return f"a vocabulary of {len(vocabulary.characters):,} characters"
    return "which reads and writes bytes"


def describe_loss(metrics: Mapping[str, Any], direction: Direction, level: str) -> str:
    """Return the loss on the validation text, or nothing if the model has none."""
    validation = metrics.get("validation", {})
    prefix = "backward_" if direction == "backward" else ""
    nats, bits = validation.get(f"{prefix}loss_nats"), validation.get(f"{prefix}bpc")
    if not isinstance(nats, float) or not isinstance(bits, float):
        return ""
    symbol = "byte" if level == "byte" else "character"
    return f"{nats:.3f} nats per {symbol} on its validation text ({bits:.3f} bits)"
