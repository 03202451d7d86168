"""Small training runs without the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from charlstm.config import Config, DataConfig, ModelConfig, RegularizationConfig, TrainingConfig
from charlstm.data.corpus import Corpus
from charlstm.training.events import Event, Stepped
from tests.support.texts import ENGLISH

MODEL = ModelConfig(hidden=12, embedding=8, layers=2, dropout=0.3)
TRAINING = TrainingConfig(seq_len=16, batch_size=4, epochs=2, validate_every=10, segment_len=80, device="cpu")
CORPUS = Corpus.from_text(ENGLISH[:2500])


def make_config(**settings: Any) -> Config:
    """Return the settings of the runs in this file, with some changed."""
    model, other = (
        {name: settings.pop(name) for name in list(settings) if hasattr(section, name)}
        for section in (MODEL, RegularizationConfig)
    )
    return Config(
        replace(MODEL, **model),
        DataConfig(corpus=("little",)),
        replace(TRAINING, **settings),
        RegularizationConfig(**other),
    )


def stop_at(step: int) -> Any:
    """Return a function that lists events, and a `stop` that is true once this many steps were listed."""
    taken = 0

    def watch(events: Iterator[Event]) -> list[Event]:
        nonlocal taken
        seen = []
        for event in events:
            seen.append(event)
            taken += isinstance(event, Stepped)
        return seen

    return watch, lambda: taken >= step
