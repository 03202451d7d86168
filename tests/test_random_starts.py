"""A trained model can start anywhere in a text: no place makes it lose the text for as long as it reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from charlstm.config import CELL_NAMES, Config, ModelConfig, TrainingConfig
from charlstm.data.corpus import Corpus
from charlstm.evaluation.forward import evaluation_mode
from charlstm.model.language_model import LanguageModel
from charlstm.training.schedule import learning_rate
from charlstm.training.trainer import Trainer
from tests.support.texts import ENGLISH

pytestmark = pytest.mark.slow

STEPS, FIRST, LAST = 200, 100, 200
MARGIN_NATS = 1.0


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_model_of_every_cell_can_start_anywhere(cell: str) -> None:
    """Characters 100 to 200 after any start cost what they cost when the text is read from its beginning."""
    training = TrainingConfig(batch_size=8, seq_len=32, threads=1, device="cpu")
    trainer = Trainer(
        Corpus.from_text(ENGLISH), Config(ModelConfig(cell=cell, hidden=32, embedding=16), training=training)
    )
    for step in range(STEPS):
        trainer.step(learning_rate(training, step / STEPS))
    ids = trainer.tokens.part("val").span(0, 3000).astype(np.int64)
    starts = np.arange(0, len(ids) - LAST - 1, 3)
    places = starts + np.arange(LAST + 1)[:, None]
    with trainer.average.applied():
        from_beginning = measure_losses(trainer.model, ids[:, None])[:, 0]
        from_starts = measure_losses(trainer.model, ids[places])
    expected = from_beginning[places[FIRST:-1]].mean(0)
    lost = starts[from_starts[FIRST:].mean(0) > expected + MARGIN_NATS]
    assert not len(lost), f"{len(lost)} of {len(starts)} starts are lost, the first at {lost[0]}"


@torch.inference_mode()
def measure_losses(model: torch.nn.Module, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the losses of ids [T+1, B] after the first, read from the initial state, in nats [T, B]."""
    assert isinstance(model, LanguageModel)
    x = torch.from_numpy(ids)
    with evaluation_mode(model):
        logits, _ = model(x[:-1], model.initial_state(x.shape[1]))
    losses: NDArray[np.float32] = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), x[1:], reduction="none"
    ).numpy()
    return losses
