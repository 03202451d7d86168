"""Dynamic evaluation: a model learns from the text it reads, and gets its weights back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from charlstm.config import CELL_NAMES, AdaptationConfig, ModelConfig
from charlstm.errors import DivergedError
from charlstm.evaluation.dynamic import WINDOW, DynamicUpdate, adapt, predict_dynamically
from charlstm.evaluation.evaluate import score_characters
from charlstm.evaluation.metrics import log_probabilities_of, with_symbols
from charlstm.model.language_model import LanguageModel
from charlstm.storage.model import ModelFile
from tests.support.texts import ENGLISH

pytestmark = pytest.mark.slow

CONFIG = AdaptationConfig()


@pytest.fixture
def model(run: Path) -> LanguageModel:
    file = ModelFile.load(run / "best.safetensors")
    model = LanguageModel(file.config.model, file.vocabulary.size)
    model.load_weights(file.weights)
    return model


@pytest.fixture(scope="module")
def ids(run: Path) -> np.ndarray:
    return ModelFile.load(run / "best.safetensors").vocabulary.encode(ENGLISH[20_000:20_510])


def score_windows(model: LanguageModel, ids: np.ndarray, bos: int, config: AdaptationConfig) -> list[np.ndarray]:
    """Return the log-probabilities of the characters of each window, [n]."""
    windows = predict_dynamically(model, ids, bos, config)
    return [log_probabilities_of(symbols, window) for window, symbols in with_symbols(windows, ids)]


def test_every_character_is_scored_once_and_the_first_window_by_the_trained_weights(
    model: LanguageModel, ids: np.ndarray
) -> None:
    static = score_characters(model, ids, 0).forward.log_probability
    windows = score_windows(model, ids, 0, CONFIG)
    assert [len(window) for window in windows] == [WINDOW] * 25 + [10]
    np.testing.assert_allclose(windows[0], static[:WINDOW], atol=1e-5)
    assert np.abs(np.concatenate(windows) - static).max() > 0.01


def test_a_window_is_scored_before_the_weights_learn_from_it(model: LanguageModel, ids: np.ndarray) -> None:
    other = ids.copy()
    other[3 * WINDOW :] = ids[0]
    windows, changed = (score_windows(model, text, 0, CONFIG)[:4] for text in (ids, other))
    np.testing.assert_array_equal(windows[:3], changed[:3])
    assert not np.array_equal(windows[3], changed[3])


def test_dynamic_evaluation_at_rate_0_equals_plain_evaluation(model: LanguageModel, ids: np.ndarray) -> None:
    windows = score_windows(model, ids, 0, AdaptationConfig(adapt_rate=0))
    np.testing.assert_allclose(
        np.concatenate(windows), score_characters(model, ids, 0).forward.log_probability, atol=1e-4
    )


def test_the_weights_are_restored_exactly_after_dynamic_evaluation(model: LanguageModel, ids: np.ndarray) -> None:
    model.train()
    before, random = model.export_weights(), torch.get_rng_state()
    first = np.concatenate(score_windows(model, ids, 0, CONFIG))
    assert all(module.training for module in model.modules())
    assert torch.equal(random, torch.get_rng_state())
    abandoned = predict_dynamically(model, ids, 0, CONFIG)
    next(abandoned)
    abandoned.close()
    for name, weight in model.export_weights().items():
        assert weight.tobytes() == before[name].tobytes()
    np.testing.assert_array_equal(np.concatenate(score_windows(model, ids, 0, CONFIG)), first)


def test_dynamic_evaluation_predicts_a_repetitive_text_better(model: LanguageModel, run: Path) -> None:
    ids = ModelFile.load(run / "best.safetensors").vocabulary.encode("zog mab quiv lux " * 100)
    static, windows = (
        score_characters(model, ids, 0).forward.log_probability,
        np.concatenate(score_windows(model, ids, 0, CONFIG)),
    )
    assert windows.mean() > static.mean() + 0.3
    assert windows[-400:].mean() > windows[:400].mean()


def test_an_adapted_model_keeps_its_new_weights(model: LanguageModel, ids: np.ndarray) -> None:
    before = score_characters(model, ids, 0).forward.log_probability.mean()
    for _ in adapt(model, ids, 0, CONFIG):
        pass
    assert score_characters(model, ids, 0).forward.log_probability.mean() > before


def test_decay_moves_the_weights_back_to_the_trained_ones() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, -3.0]))
    trained = weight.detach().clone()
    updates = DynamicUpdate([weight], AdaptationConfig(adapt_rate=0.1, adapt_decay=0.5))
    updates.step([torch.tensor([0.5, 0.5, 0.5])])
    away = (weight - trained).abs().max().item()
    torch.testing.assert_close(weight.detach(), trained - 0.1 / 1.1)
    updates.step([torch.zeros(3)])
    assert (weight - trained).abs().max().item() == pytest.approx(away / 2)


def test_a_vocabulary_of_one_symbol_leaves_the_weights_unchanged() -> None:
    alone = LanguageModel(ModelConfig(hidden=4, embedding=4), 1)
    before = alone.export_weights()
    assert np.concatenate(list(adapt(alone, np.zeros(50, np.int64), 0, CONFIG))).max() == 0
    for name, weight in alone.export_weights().items():
        np.testing.assert_array_equal(weight, before[name])


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_cell_learns_during_dynamic_evaluation(cell: str) -> None:
    torch.manual_seed(1)
    model = LanguageModel(ModelConfig(cell=cell, layers=2, hidden=8, embedding=4, dropout=0.5), 5)
    scores = np.concatenate(score_windows(model, np.arange(1000) % 5, 0, AdaptationConfig(adapt_rate=0.01)))
    assert scores[-200:].mean() > scores[:200].mean()


def test_divergence_raises_an_error_and_restores_the_weights(model: LanguageModel, ids: np.ndarray) -> None:
    before, config = model.export_weights(), AdaptationConfig()
    object.__setattr__(config, "adapt_rate", float("inf"))  # no rate in the allowed range makes this model diverge
    with pytest.raises(DivergedError, match="lower --adapt-rate"):
        score_windows(model, ids, 0, config)
    for name, weight in model.export_weights().items():
        np.testing.assert_array_equal(weight, before[name])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems use torch's threads")
def test_adapting_uses_one_thread_and_leaves_the_number_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads would wait for each other at every character, and for any program that takes the core of one."""
    used, step = set(), DynamicUpdate.step

    def record(updates: DynamicUpdate, gradients: Sequence[Tensor]) -> None:
        used.add(torch.get_num_threads())
        step(updates, gradients)

    monkeypatch.setattr(DynamicUpdate, "step", record)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = LanguageModel(ModelConfig(hidden=8, embedding=4), 10)
        for _ in adapt(model, np.zeros(50, np.int64), 0, CONFIG):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert used == {1}
