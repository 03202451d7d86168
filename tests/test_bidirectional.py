"""Bidirectional models: no character leaks into its own prediction; training, evaluation and NumPy agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from charlstm.architecture import weight_shapes
from charlstm.cells import CELLS
from charlstm.config import Config, ModelConfig, RegularizationConfig
from charlstm.evaluation import streams as streams_module
from charlstm.evaluation import two_sided
from charlstm.evaluation.evaluate import evaluate
from charlstm.evaluation.streams import Streams
from charlstm.evaluation.two_sided import predict_both_sides
from charlstm.infilling.context import Predictors
from charlstm.model.bidirectional import BidirectionalModel
from charlstm.model.layers import TORCH_LAYERS, Engine
from charlstm.sampling.network import prefill
from charlstm.storage.model import ModelFile
from charlstm.training.objective import add_penalties, total_loss
from charlstm.vocabulary import CharVocabulary
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import SMALL

pytestmark = pytest.mark.slow

SIZE, BOS, END = 7, 0, 6
OPTIONS: list[dict[str, Any]] = [
    {"between": "highway"},
    {"head": "all"},
    {"bigrams": 30},
    {"head": "tied"},
    {"head": "tied", "embedding": 128},
    {"zoneout": 0.2},
]


def model_of(
    cell: str = "lstm", layers: int = 2, engine: Engine = "kernel", end_of_document: int | None = None, **options: Any
) -> BidirectionalModel:
    torch.manual_seed(layers)
    config = replace(
        ModelConfig(), cell=cell, layers=layers, bidirectional=True, **{"hidden": 10, "embedding": 5} | options
    )
    model = BidirectionalModel(config, SIZE, engine, end_of_document=end_of_document, look_ahead=3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def logits_of(model: BidirectionalModel, ids: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the forward, backward and joint logits at every position of a text, each [N, V]."""
    chunks = list(predict_both_sides(model, ids, BOS, Streams.for_evaluation(len(ids))))
    order = np.argsort(np.concatenate([chunk.places for chunk in chunks]))
    forward, backward, both = (
        torch.cat(logits)[order] for logits in zip(*(chunk.views for chunk in chunks), strict=True)
    )
    return forward, backward, both


@pytest.mark.parametrize(
    ("cell", "engine"), [(cell, "kernel") for cell in CELLS] + [(cell, "torch") for cell in TORCH_LAYERS]
)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_no_character_leaks_into_its_own_prediction(cell: str, engine: Engine, layers: int) -> None:
    check_no_leak(model_of(cell, layers, engine))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_no_character_leaks_with_any_connection_between_layers_or_kind_of_head(options: dict[str, Any]) -> None:
    check_no_leak(model_of(**options))


def test_no_character_leaks_at_the_ends_of_documents() -> None:
    check_no_leak(model_of(end_of_document=END))


def check_no_leak(model: BidirectionalModel) -> None:
    ids = np.random.default_rng(0).integers(SIZE, size=9)
    forward, backward, both = logits_of(model, ids)
    for t in range(len(ids)):
        changed = ids.copy()
        changed[t] = (ids[t] + 1) % SIZE
        after = logits_of(model, changed)
        assert torch.equal(after[0][: t + 1], forward[: t + 1])
        assert torch.equal(after[1][t:], backward[t:])
        assert torch.equal(after[2][t], both[t])
        if END not in (ids[t], changed[t]):
            assert not torch.equal(after[2][t - 1], both[t - 1]), "its neighbors depend on it"


@pytest.mark.parametrize("cell", CELLS)
def test_training_computes_the_losses_of_models_that_read_only_what_precedes_or_follows(cell: str) -> None:
    model, steps, ahead, batch = model_of(cell), 5, 3, 2
    window = torch.randint(SIZE, (steps + 1 + ahead, batch))
    (forward, backward, both), _ = model.compute_objectives(window, model.initial_state(batch))
    expected: list[list[Tensor]] = [[], [], []]
    for t in range(1, steps + 1):
        before, _ = model.forward_lm.unroll(window[:t], model.initial_state(batch))
        after, _ = model.backward_lm.unroll(window[t + 1 :].flip(0), model.backward_lm.initial_state(batch))
        f, b = before.head_input[-1], after.head_input[-1]
        joint = model.joint(model.joint.project(torch.cat([f, b], -1)))
        logits = model.forward_lm.head(f), model.backward_lm.head(b), joint
        for found, values in zip(expected, logits, strict=True):
            found.append(cross_entropy(values, window[t]))
    for objective, found in zip((forward, backward, both), expected, strict=True):
        torch.testing.assert_close(objective.losses.nats, torch.stack(found).mean())


def test_the_look_ahead_changes_the_backward_loss_and_gets_no_gradient() -> None:
    model = model_of(layers=1)
    ids = torch.randint(SIZE, (5 + 1 + 3, 1))
    losses = [model.compute_objectives(ids, model.initial_state(1))[0][1].losses.nats]
    ids[-1] = (ids[-1] + 1) % SIZE
    losses.append(model.compute_objectives(ids, model.initial_state(1))[0][1].losses.nats)
    assert losses[0] != losses[1]
    alone = int(ids[-1])
    model.zero_grad()
    window = torch.where(ids == alone, (ids + 1) % SIZE, ids)
    window[-1] = alone  # a character that is in the look-ahead only
    model.compute_objectives(window, model.initial_state(1))[0][1].losses.smoothed.backward()  # type: ignore[no-untyped-call]
    gradient = model.embedding.weight.grad
    assert gradient is not None
    assert gradient[alone].abs().sum() == 0
    assert gradient.abs().sum() > 0


def test_the_total_loss_is_the_weighted_mean_of_the_three_losses() -> None:
    model = model_of()
    objectives, _ = model.compute_objectives(torch.randint(SIZE, (9, 2)), model.initial_state(2))
    config = Config(regularization=RegularizationConfig(activation_penalty=0.5))
    config = replace(
        config, training=replace(config.training, forward_weight=1.0, backward_weight=2.0, joint_weight=5.0)
    )
    terms = [
        add_penalties(objective.losses.smoothed, objective.outputs, config.regularization)
        for objective in objectives[:2]
        if objective.outputs
    ]
    expected = (terms[0] + 2 * terms[1] + 5 * objectives[2].losses.smoothed) / 8
    torch.testing.assert_close(total_loss(objectives, config), expected)


@pytest.mark.parametrize(("length", "streams"), [(40, 1), (2100, 2), (3001, 3)])
@pytest.mark.parametrize("end_of_document", [None, END])
def test_the_metrics_of_a_direction_are_those_of_its_model_alone(
    length: int, streams: int, end_of_document: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "MIN_STREAM", 1000)
    monkeypatch.setattr(streams_module, "MAX_CHUNK_LOGITS", 7 * SIZE * streams)  # chunks of 7 characters
    model = model_of(layers=1, end_of_document=end_of_document)
    ids = np.random.default_rng(1).integers(SIZE, size=length)
    found = evaluate(model, ids, BOS, length)
    assert found is not None
    assert len(Streams.for_evaluation(length).starts) == streams
    for nats, alone, text in (
        (found.total_nats, model.forward_lm, ids),
        (found.backward_total_nats, model.backward_lm, ids[::-1]),
    ):
        single = evaluate(alone, text.copy(), BOS, length)
        assert single is not None
        assert nats == pytest.approx(single.total_nats, rel=1e-5)


@pytest.mark.parametrize("length", [40, 2100, 3001])
def test_the_metrics_do_not_depend_on_the_number_of_segments(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "MIN_STREAM", 1000)
    monkeypatch.setattr(streams_module, "MAX_CHUNK_LOGITS", 7 * SIZE * max(length // 1000, 1))
    model, ids = model_of(layers=1), np.random.default_rng(1).integers(SIZE, size=length)
    whole = evaluate(model, ids, BOS, length)
    monkeypatch.setattr(two_sided, "CHUNKS_PER_SEGMENT", 2)
    parts = evaluate(model, ids, BOS, length)
    assert whole is not None
    assert parts is not None
    assert parts.backward_loss_nats == pytest.approx(whole.backward_loss_nats, rel=1e-5)
    assert parts.pseudo_likelihood_nats == pytest.approx(whole.pseudo_likelihood_nats, rel=1e-5)


def test_train_rejects_a_text_shorter_than_a_window_and_its_look_ahead(corpus: Path) -> None:
    result = charlstm("train", corpus, *SMALL, "--bidirectional", "--set", "training.look_ahead=4000")
    assert_fails(result, 1, "3,600 characters", "at least 4,017")


def test_chunks_end_where_the_last_stream_ends() -> None:
    starts = np.array([0, 10])
    assert Streams(20, 10, starts).chunks_to_each_end(4) == [(0, 4), (4, 8), (8, 10)]
    assert Streams(19, 10, starts).chunks_to_each_end(4) == [(0, 4), (4, 8), (8, 9), (9, 10)]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_numpy_gives_the_joint_logits_of_torch(cell: str, options: dict[str, Any]) -> None:
    model = model_of(cell, **options)
    ids = np.random.default_rng(2).integers(SIZE, size=12)
    *_, both = logits_of(model, ids)
    sides = Predictors.from_file(ModelFile(config_of(cell, options), CharVocabulary("abcdefg"), model.export_weights()))
    assert sides.backward is not None
    assert sides.joint is not None
    edge = np.array([BOS])
    for t in range(len(ids)):
        forward, _ = prefill(sides.forward, np.concatenate([edge, ids[:t]]))
        backward, _ = prefill(sides.backward, np.concatenate([edge, ids[t + 1 :][::-1]]))
        found = sides.joint.logits(np.concatenate([forward, backward], 1))[0]
        np.testing.assert_allclose(found, both[t].numpy(), atol=2e-5)


def config_of(cell: str, options: dict[str, Any]) -> Config:
    model = replace(ModelConfig(), cell=cell, layers=2, bidirectional=True, **{"hidden": 10, "embedding": 5} | options)
    return Config(model)


@pytest.mark.parametrize("options", [{}, *OPTIONS], ids=str)
def test_a_model_file_contains_both_directions_and_each_can_be_saved_as_a_model(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model, config = model_of(**options), config_of("lstm", options)
    file = ModelFile(config, CharVocabulary("abcdefg"), model.export_weights())
    assert {name: weight.shape for name, weight in file.weights.items()} == weight_shapes(config.model, SIZE)
    file.save(tmp_path / "model.safetensors")
    loaded = ModelFile.load(tmp_path / "model.safetensors")
    other = model_of(**options)
    other.load_weights(loaded.weights)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for direction, half in (("forward", model.forward_lm), ("backward", model.backward_lm)):
        alone = loaded.select_direction(direction)  # type: ignore[arg-type]
        alone.save(tmp_path / "half.safetensors")
        weights = ModelFile.load(tmp_path / "half.safetensors").weights
        assert all(np.array_equal(weights[name], weight) for name, weight in half.export_weights().items())


def test_eval_reports_the_metrics_of_both_directions_and_the_pseudo_likelihood(bidirectional_run: Path) -> None:
    Path("text.txt").write_text("the fox and the dog sat on the mat\n" * 5)
    Path("reversed.txt").write_text(("the fox and the dog sat on the mat\n" * 5)[::-1])
    metrics = json.loads(charlstm("eval", "-m", bidirectional_run, "text.txt", "--json").text)
    assert [name for name in metrics if "bpc" in name] == ["bpc", "backward_bpc"]
    assert metrics["pseudo_likelihood_nats"] < min(metrics["loss_nats"], metrics["backward_loss_nats"])
    assert 0.9 < metrics["forward_accuracy"] <= metrics["both_sides_accuracy"] <= 1
    ModelFile.load(bidirectional_run / "best.safetensors").select_direction("backward").save(
        Path("backward.safetensors")
    )
    reversed_metrics = json.loads(charlstm("eval", "-m", "backward.safetensors", "reversed.txt", "--json").text)
    assert metrics["backward_loss_nats"] == pytest.approx(reversed_metrics["loss_nats"], rel=1e-5)


def test_gap_length_without_gaps_is_an_error(run: Path) -> None:
    assert_fails(charlstm("eval", "-m", run, "--gap-length", "3"), 2, "--gap-length", "--gaps")


def test_training_logs_the_metrics_of_both_directions_and_saves_them_in_the_model(bidirectional_run: Path) -> None:
    lines = [json.loads(line) for line in (bidirectional_run / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "validation_loss_nats" in line)
    metrics = ModelFile.load(bidirectional_run / "best.safetensors").metrics["validation"]
    for name in ("backward_loss_nats", "pseudo_likelihood_nats", "both_sides_accuracy"):
        assert last[f"validation_{name}"] > 0
        assert metrics[name] > 0


def test_init_from_works_between_unidirectional_and_bidirectional_models(
    run: Path, bidirectional_run: Path, corpus: Path
) -> None:
    first = charlstm(
        "train", corpus, "-o", "two", *SMALL, "--hidden", 48, "--epochs", 1, "--init-from", run, "--bidirectional"
    )
    assert first.code == 0, first.err
    second = charlstm(
        "train",
        corpus,
        "-o",
        "one",
        *SMALL,
        "--epochs",
        1,
        "--init-from",
        bidirectional_run,
        "--set",
        "model.bidirectional=false",
    )
    assert second.code == 0, second.err
    assert ModelFile.load(Path("two/best.safetensors")).config.model.bidirectional
    assert not ModelFile.load(Path("one/best.safetensors")).config.model.bidirectional


def test_a_dry_run_shows_that_the_layers_exist_in_each_direction(corpus: Path) -> None:
    err = charlstm("train", corpus, *SMALL, "--bidirectional", "--dry-run").err
    assert "lstm 1 x 24 in each direction" in err
