"""Models that learn from the text that they read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from charlstm.cli.texts import read_files
from charlstm.config import AdaptationConfig, Direction, UnknownPolicy
from charlstm.console import Console
from charlstm.evaluation.metrics import with_symbols
from charlstm.runtime import retain_freed_memory
from charlstm.sampling.mixture import Mixture
from charlstm.storage.model import ModelFile
from charlstm.wording import quantity


def adapt_model(
    console: Console,
    file: ModelFile,
    source: str,
    direction: Direction,
    unknown: UnknownPolicy,
    config: AdaptationConfig,
) -> ModelFile:
    """Return the model after it has learned from a text, read once in this direction.

    Raises as `charlstm eval` does for the text.
    """
    one_direction, ids = read_for_direction(console, file, source, direction, unknown)

    from charlstm.evaluation.dynamic import adapt
    from charlstm.model.loading import load_language_model

    model = load_language_model(one_direction)
    for _ in show_reading(console, adapt(model, ids, file.vocabulary.bos, config), len(ids)):
        pass
    return file.with_direction(direction, model.export_weights())


def read_mixture(
    console: Console,
    file: ModelFile,
    averaged: ModelFile | None,
    source: str,
    direction: Direction,
    unknown: UnknownPolicy,
) -> Mixture:
    """Return the mixture of the model with an n-gram model after both have read a text, once in this direction.

    averaged: the model reads as the mean of itself and this one.

    Raises as `charlstm eval` does for the text.
    """
    one_direction, ids = read_for_direction(console, file, source, direction, unknown)

    from charlstm.evaluation.in_order import predict_in_order
    from charlstm.model.loading import load_language_model

    halves = [one_direction, averaged.select_direction(direction)] if averaged else [one_direction]
    windows = predict_in_order([load_language_model(half) for half in halves], ids, file.vocabulary.bos)
    mixture = Mixture(file.vocabulary.size)
    for window, symbols in with_symbols(show_reading(console, windows, len(ids)), ids):
        mixture.read(window, symbols)
    return mixture


def read_for_direction(
    console: Console, file: ModelFile, source: str, direction: Direction, unknown: UnknownPolicy
) -> tuple[ModelFile, NDArray[np.integer]]:
    """Return one direction of a model, and the ids of a text in its reading order."""
    one_direction = file.select_direction(direction)
    retain_freed_memory()
    tokens, about = read_files(console, file, [source], unknown)
    if about["characters_left_out"]:
        console.note(
            f"left out {quantity(about['characters_left_out'], 'character')} that the model does not know", "dim"
        )
    return one_direction, tokens.span(0, len(tokens))[:: -1 if direction == "backward" else 1]


def show_reading(
    console: Console, windows: Iterator[NDArray[np.float32]], length: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the windows of a text of this length, with a progress bar."""
    done = 0
    with console.progress() as bar:
        for window in windows:
            yield window
            done += len(window)
            bar.update(done / length, f"reading {quantity(length, 'character')}")
