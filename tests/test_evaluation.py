"""Evaluation scores every character once, in context."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch

import charlstm
from charlstm.config import ModelConfig
from charlstm.evaluation import streams
from charlstm.evaluation.evaluate import evaluate, score_characters
from charlstm.evaluation.forward import predict_forward
from charlstm.evaluation.metrics import Metrics
from charlstm.evaluation.streams import Streams
from charlstm.model.language_model import LanguageModel
from charlstm.storage.model import ModelFile
from tests.support.texts import ENGLISH


@pytest.fixture(scope="module")
def model(run: Path) -> LanguageModel:
    file = ModelFile.load(run / "best.safetensors")
    model = LanguageModel(file.config.model, file.vocabulary.size)
    model.load_weights(file.weights)
    return model


@pytest.fixture(scope="module")
def ids(run: Path) -> np.ndarray:
    return ModelFile.load(run / "best.safetensors").vocabulary.encode(ENGLISH[20_000:29_000])


@pytest.mark.parametrize("length", [1, 2, 4095, 4096, 8192, 8193, 100_003])
def test_every_character_is_predicted_exactly_once(model: LanguageModel, ids: np.ndarray, length: int) -> None:
    text = np.resize(ids, length)
    places = np.concatenate([chunk.places for chunk in predict_forward(model, text, 0, Streams.for_evaluation(length))])
    np.testing.assert_array_equal(np.sort(places), np.arange(length))


def test_streams_cover_a_text_of_any_length() -> None:
    for length in (1, 5000, 8191, 8192, 1_000_000, 12_345_678):
        cut = Streams.for_evaluation(length)
        assert cut.starts[-1] < length <= cut.starts[-1] + cut.steps
        assert len(cut.starts) <= streams.MAX_STREAMS


@pytest.mark.parametrize(("length", "limit"), [(11, 10), (5000, 1), (100_003, 30_000), (5_000_000, 250_000)])
def test_a_text_read_in_part_is_read_in_pieces_from_all_over_it(length: int, limit: int) -> None:
    cut = Streams.for_evaluation(length, limit)
    places = np.concatenate([np.arange(*span) for span in cut.spans])
    assert len(np.unique(places)) == len(places) == cut.characters
    assert limit <= cut.characters <= min(limit + len(cut.starts), length)
    distances = np.diff(cut.starts)
    assert len(distances) == 0 or distances.min() >= length // len(cut.starts)
    assert cut.starts[-1] + length / len(cut.starts) >= length - len(cut.starts)


def test_the_metrics_of_a_part_are_those_of_its_characters_in_the_whole_text(
    model: LanguageModel, ids: np.ndarray
) -> None:
    whole, part = score_characters(model, ids, 0), evaluate(model, ids, 0, 3000, limit=3000)
    assert part is not None
    read = np.concatenate([np.arange(*span) for span in Streams.for_evaluation(len(ids), 3000).spans])
    assert part.characters == len(read)
    assert part.loss_nats == pytest.approx(-whole.forward.log_probability[read].mean(), abs=1e-3)


def test_parallel_streams_give_the_loss_of_a_single_pass(
    model: LanguageModel, ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    parallel = evaluate(model, ids, 0, len(ids))
    monkeypatch.setattr(streams, "MIN_STREAM", 10**9)
    whole = evaluate(model, ids, 0, len(ids))
    assert parallel is not None and whole is not None
    assert parallel.loss_nats == pytest.approx(whole.loss_nats, abs=1e-4)


def test_a_warm_up_begins_as_a_sample_begins_whatever_character_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit of this network stays at -1 once it has read BOS, and at +1 if the first character is an x.

    Every second character is an x, so a stream that begins with one would never be where a reading of the text is.
    """
    bos, x, other = 0, 1, 2
    lost = LanguageModel(ModelConfig(cell="rnn", hidden=1, embedding=1), 3)
    weights = {name: np.zeros_like(weight) for name, weight in lost.export_weights().items()}
    weights["embedding.weight"][[bos, x]] = [[-1], [1]]
    weights["layers.0.weight_ih"][:], weights["layers.0.weight_hh"][:] = 5, 20
    weights["head.weight"][other] = 5
    lost.load_weights(weights)
    text = np.tile([x, other], 5000)
    monkeypatch.setattr(streams, "MIN_STREAM", 1000)
    parallel = evaluate(lost, text, bos, len(text))
    monkeypatch.setattr(streams, "MIN_STREAM", 10**9)
    whole = evaluate(lost, text, bos, len(text))
    assert parallel is not None and whole is not None
    assert parallel.loss_nats == pytest.approx(whole.loss_nats, abs=1e-4)


def test_the_first_characters_of_a_stream_are_scored_as_in_a_single_pass(
    model: LanguageModel, ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MIN_STREAM", 1000)
    starts = Streams.for_evaluation(len(ids)).starts
    parallel = score_characters(model, ids, 0).forward.log_probability
    monkeypatch.setattr(streams, "MIN_STREAM", 10**9)
    whole = score_characters(model, ids, 0).forward.log_probability
    assert len(starts) > 5
    for start in starts:
        np.testing.assert_allclose(parallel[start : start + 20], whole[start : start + 20], atol=1e-4)


def test_torch_and_numpy_score_a_text_alike(model: LanguageModel, run: Path, ids: np.ndarray) -> None:
    text_model = charlstm.load(run)
    text = text_model.vocabulary.decode(ids[:500]).decode()
    scores = score_characters(model, ids[:500], text_model.vocabulary.bos).forward
    np.testing.assert_allclose(scores.log_probability, text_model.score(text), atol=1e-4)
    assert scores.rank.min() >= 1


def test_bpc_perplexity_and_bits_per_byte_follow_from_the_loss() -> None:
    metrics = Metrics(characters=100, bytes=200, total_nats=100 * log(2))
    assert metrics.bpc == pytest.approx(1)
    assert metrics.bits_per_byte == pytest.approx(0.5)
    assert metrics.perplexity == pytest.approx(2)
    assert metrics.loss_nats == pytest.approx(log(2))


def test_evaluation_keeps_the_weights_the_mode_and_the_random_state(model: LanguageModel, ids: np.ndarray) -> None:
    model.train()
    before, random = model.export_weights(), torch.get_rng_state()
    first = evaluate(model, ids, 0, len(ids))
    assert model.training
    assert torch.equal(random, torch.get_rng_state())
    for name, weight in model.export_weights().items():
        np.testing.assert_array_equal(weight, before[name])
    assert evaluate(model, ids, 0, len(ids)) == first


def test_an_evaluation_that_is_stopped_returns_none(model: LanguageModel, ids: np.ndarray) -> None:
    assert evaluate(model, ids, 0, len(ids), stop=lambda: True) is None


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary_size(model: LanguageModel, ids: np.ndarray) -> None:
    blank = LanguageModel(charlstm.ModelConfig(hidden=4, embedding=4), 50)
    torch.nn.init.zeros_(blank.head.weight)
    metrics = evaluate(blank, ids % 50, 0, len(ids))
    assert metrics is not None
    assert metrics.loss_nats == pytest.approx(log(50), abs=1e-5)
