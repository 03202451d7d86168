"""The model card: what a model is, how it was trained and how well it predicts, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import charlstm
from charlstm.architecture import count_parameters, describe_architecture
from charlstm.config import CardConfig
from charlstm.export.rounding import Precision
from charlstm.export.training_command import format_training_command
from charlstm.storage.model import ModelFile, name_sources, without_paths

CARD_NAME = "README.md"

CARD_MARK = "<!-- model card by charlstm export, which replaces it -->"


@dataclass(frozen=True)
class Memorization:
    """How much of a sample was copied from the training text."""

    characters: int  # of the sample
    copied_share: float  # in runs of `min_run` characters or more
    longest_run: int  # characters
    min_run: int


@dataclass(frozen=True)
class Measurements:
    """What export measures of a model.

    memorization: None where the training text is not available.
    precision: of the weights in an ONNX file.
    loss_nats, loss_text: what the model loses by them per character, and of which text.
    """

    memorization: Memorization | None = None
    precision: Precision = "fp32"
    loss_nats: float = 0.0
    loss_text: str = ""


def format_card(title: str, file: ModelFile, measured: Measurements, usage: str) -> str:
    """Return the card.

    title: of the model, as `find_title` finds it.
    usage: Markdown that shows how to use the exported files.
    """
    parts = [
        "\n".join(["---", *list_front_matter(file.config.card), "---", "", CARD_MARK]),
        f"# {title}",
        file.config.card.about,
        describe_size(file),
        f"## Use\n\n{usage}",
        format_metrics("## Metrics", dict(list_metrics(file, measured))),
        f"## Memorization\n\n{describe_memorization(measured.memorization)}",
        f"## Training\n\n{describe_training(file)}",
        "<details><summary>All settings, for charlstm train --config</summary>",
        f"```toml\n{format_settings(file)}```",
        "</details>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def list_front_matter(card: CardConfig) -> Iterator[str]:
    """Yield the fields by which model hubs find a model, in YAML."""
    if " " in card.license or "(" in card.license:
        yield from ("license: other", f'license_name: "{card.license}"')
    elif card.license:
        yield f'license: "{card.license.lower()}"'
    yield from ("library_name: charlstm", "pipeline_tag: text-generation", "tags:", "- character-level", "- rnn")


def describe_size(file: ModelFile) -> str:
    model, vocabulary = file.config.model, file.vocabulary
    symbols = "bytes" if vocabulary.level == "byte" else f"{vocabulary.size:,} symbols"
    parameters = count_parameters(model, vocabulary.size)
    trained_by = f"charlstm {file.version}" if file.version else "charlstm"
    return (
        f"A character-level recurrent network ({describe_architecture(model)} units, {parameters:,} parameters) over "
        f"{symbols}, trained by {trained_by} and exported by charlstm {charlstm.__version__}."
    )


METRIC_LABELS = {
    "loss_nats": "validation loss, nats per character",
    "bpc": "validation loss, bits per character",
    "bits_per_byte": "validation loss, bits per byte",
    "perplexity": "perplexity per character",
    "backward_loss_nats": "validation loss backward, nats per character",
    "pseudo_likelihood_nats": "validation loss given both sides, nats per character",
    "both_sides_accuracy": "characters predicted given both sides",
    "characters": "characters of the validation part",
}
"""Metrics of a validation that the card shows, and what it calls them."""


def list_metrics(file: ModelFile, measured: Measurements) -> Iterator[tuple[str, str]]:
    """Yield the metrics of the model with their names."""
    validation = file.metrics.get("validation", {})
    for name, label in METRIC_LABELS.items():
        if name in validation:
            yield label, format_number(validation[name])
    for name, label in {"step": "training steps", "characters": "characters read in training"}.items():
        if name in file.metrics:
            yield label, format_number(file.metrics[name])
    if measured.precision != "fp32":
        yield (
            f"change of the loss by {measured.precision} weights, nats per character of {measured.loss_text}",
            f"{measured.loss_nats:+.5f}",
        )


def format_number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else str(value)


def format_metrics(title: str, rows: dict[str, str]) -> str:
    """Return a table in Markdown under a title; empty without rows."""
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([title, "", "| metric | value |", "| --- | --- |", *lines]) if lines else ""


def describe_memorization(found: Memorization | None) -> str:
    if found is None:
        return "Not measured: the training text was not available when the model was exported."
    return (
        f"Of a sample of {found.characters:,} characters at temperature 1, {found.copied_share:.1%} are in runs of "
        f"{found.min_run} or more characters that occur in the training text. The longest run that occurs there has "
        f"{found.longest_run:,} characters."
    )


def describe_training(file: ModelFile) -> str:
    names = ", ".join(f"`{name}`" for name in name_sources(file.config.data)) or "an unnamed text"
    about = file.corpus
    size = f" ({about['characters']:,} symbols)" if "characters" in about else ""
    fingerprint = f", SHA-256 fingerprint {about['fingerprint']}" if "fingerprint" in about else ""
    return (
        f"Training text: {names}{size}{fingerprint}. It is not part of the model. This command trains with the same "
        f"settings:\n\n```sh\n{format_training_command(file.config)}\n```"
    )


def format_settings(file: ModelFile) -> str:
    """Return the settings as TOML, without paths and without what the card says elsewhere."""
    config = replace(file.config, data=without_paths(file.config.data), card=CardConfig())
    return config.to_toml().partition("[card]")[0].rstrip() + "\n"
