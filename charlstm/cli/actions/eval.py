"""The metrics of a model on a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from charlstm.cli.actions.adapt import show_reading
from charlstm.cli.commands.eval import GapOptions, TextSource
from charlstm.cli.output import write_json
from charlstm.cli.texts import count_symbol, read_files, read_part
from charlstm.config import AdaptationConfig
from charlstm.console import Console, escape_controls
from charlstm.data.split import Tokens
from charlstm.evaluation.metrics import Metrics, sum_nats, with_symbols
from charlstm.infilling.benchmark import GapResults, HiddenGaps, characters_needed, fill_hidden_gaps
from charlstm.infilling.context import Predictors
from charlstm.runtime import retain_freed_memory
from charlstm.sampling.mixture import Mixture
from charlstm.storage.locate import name_model
from charlstm.storage.model import ModelFile
from charlstm.wording import quantity

OPTIONAL_ROWS = ("characters_left_out", "characters_folded", "end_symbols")
"""Rows that the table omits where they are 0."""


def evaluate_model(
    console: Console,
    path: Path,
    source: TextSource,
    gaps: GapOptions | None,
    adaptation: AdaptationConfig | None,
    averaged: Path | None,
    *,
    mix: bool,
) -> dict[str, Any]:
    """Return the metrics of a model on a text by their JSON keys.

    averaged: another model; adds the metrics of the mean with it.
    adaptation: adds the metrics of the model or the mean when it adapts to the text.
    mix: adds the metrics of all this mixed with an n-gram model.
    gaps: adds how many hidden gaps the model fills correctly.
    """
    retain_freed_memory()
    file = ModelFile.load(path)
    files = [file]
    if averaged:
        files.append(ModelFile.load(averaged))
        file.check_same_vocabulary(files[-1])
    tokens, about = read_text_to_score(console, file, path, source)
    size_bytes = about.pop("bytes")
    metrics = {"model": name_model(path), **about, **compute_metrics(file, tokens, size_bytes)}
    if averaged and not adaptation:
        metrics |= compute_average_metrics(files, tokens, size_bytes)
    if adaptation or mix:
        metrics |= compute_sequential_metrics(console, files, tokens, size_bytes, adaptation, mix=mix)
    if gaps:
        metrics |= compute_gap_metrics(console, file, tokens, gaps)
    return metrics


def read_text_to_score(
    console: Console, file: ModelFile, path: Path, source: TextSource
) -> tuple[Tokens, dict[str, Any]]:
    if source.files:
        return read_files(console, file, source.files, source.unknown, source.encoding, source.errors)
    return read_part(console, file, source.part, path)


def compute_metrics(file: ModelFile, tokens: Tokens, size_bytes: int) -> dict[str, Any]:
    from charlstm.evaluation.evaluate import evaluate
    from charlstm.model.loading import load_torch_model

    metrics = evaluate(load_torch_model(file), tokens, file.vocabulary.bos, size_bytes)
    assert metrics is not None
    return {**metrics.to_dict(), "end_symbols": count_symbol(tokens, file.vocabulary.end_of_document)}


def compute_average_metrics(files: list[ModelFile], tokens: Tokens, size_bytes: int) -> dict[str, float]:
    from charlstm.evaluation.evaluate import evaluate_average
    from charlstm.model.loading import load_language_model

    first, second = (load_language_model(file) for file in files)
    return name_metrics("averaged", evaluate_average((first, second), tokens, files[0].vocabulary.bos, size_bytes))


def name_metrics(name: str, metrics: Metrics) -> dict[str, float]:
    """Return what a way to read the text adds to the metrics, with its name in front of the keys."""
    return {f"{name}_{key}": value for key, value in metrics.to_dict().items() if key not in ("characters", "bytes")}


def compute_sequential_metrics(
    console: Console,
    files: list[ModelFile],
    tokens: Tokens,
    size_bytes: int,
    adaptation: AdaptationConfig | None,
    *,
    mix: bool,
) -> dict[str, float]:
    """Return the metrics of a text that is read in one stream, by one model or by the mean of two."""
    from charlstm.evaluation.in_order import predict_in_order
    from charlstm.model.loading import load_language_model

    vocabulary = files[0].vocabulary
    windows = predict_in_order([load_language_model(file) for file in files], tokens, vocabulary.bos, adaptation)
    mixture = Mixture(vocabulary.size)
    dynamic_nats = mixed_nats = 0.0
    for window, symbols in with_symbols(show_reading(console, windows, len(tokens)), tokens):
        dynamic_nats += sum_nats([(window, symbols)])
        if mix:
            mixed_nats += sum_nats([(mixture.read(window, symbols), symbols)])
    dynamic = name_metrics("dynamic", Metrics(len(tokens), size_bytes, dynamic_nats)) if adaptation else {}
    mixed = name_metrics("mixed", Metrics(len(tokens), size_bytes, mixed_nats)) if mix else {}
    return dynamic | mixed


def compute_gap_metrics(console: Console, file: ModelFile, tokens: Tokens, gaps: GapOptions) -> dict[str, Any]:
    lengths = (gaps.shortest, gaps.longest)
    size = min(len(tokens), characters_needed(gaps.share, *lengths))
    if size < len(tokens):
        console.note(f"hiding gaps in the first {size:,} of {len(tokens):,} characters")
    ids, predictors = tokens.span(0, size).astype(np.int64), Predictors.from_file(file)
    random = np.random.default_rng(gaps.seed)
    hidden = HiddenGaps.draw(ids, predictors.non_characters, gaps.share, *lengths, random)
    results = GapResults()
    with console.progress() as bar:
        for results in fill_hidden_gaps(predictors, ids, file.vocabulary.bos, hidden, random):
            bar.update(results.gaps / len(hidden.starts), f"filling {quantity(len(hidden.starts), 'gap')}")
    return {**results.to_dict(), "gap_length": f"{gaps.shortest}..{gaps.longest}", "gap_seed": gaps.seed}


def write_metrics(console: Console, metrics: dict[str, Any], as_json: bool) -> None:
    if as_json:
        write_json(console, metrics)
        return
    rows = {key: value for key, value in metrics.items() if value or key not in OPTIONAL_ROWS}
    console.table({key.replace("_", " "): format_value(value) for key, value in rows.items()})


def format_value(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else escape_controls(value)
