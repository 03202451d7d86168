"""Training on a GPU: recorded steps, precision, and files that a CPU reads. Needs CUDA: `make test-gpu`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charlstm.cells import CELLS
from charlstm.config import ModelConfig
from charlstm.data.corpus import Corpus
from charlstm.model.language_model import LanguageModel
from charlstm.model.layers import TORCH_LAYERS
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.training import shards
from charlstm.training.cuda_graph import EAGER_STEPS
from charlstm.training.events import Finished, Stepped
from charlstm.training.run import run_training
from charlstm.training.trainer import Trainer
from tests.support.command_line import assert_fails, charlstm, run_process
from tests.support.texts import ENGLISH
from tests.support.training import CORPUS, make_config, stop_at

pytestmark = pytest.mark.gpu

STEPS = 20
DOCUMENTS = Corpus.from_text(ENGLISH[:2500], replace(make_config().data, document="line"))


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Compute in float32 without TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def losses_of(trainer: Trainer, steps: int = STEPS) -> list[float]:
    return [trainer.step(3e-3) for _ in range(steps)]


def losses(device: str, corpus: Corpus = CORPUS, **settings: Any) -> list[float]:
    return losses_of(Trainer(corpus, make_config(device=device, precision="fp32", threads=1, **settings)))


@pytest.mark.parametrize("corpus", [CORPUS, DOCUMENTS], ids=["text", "documents"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_has_the_losses_of_a_cpu(cell: str, corpus: Corpus) -> None:
    settings: dict[str, Any] = {"cell": cell, "dropout": 0.0}
    np.testing.assert_allclose(losses("cuda", corpus, **settings), losses("cpu", corpus, **settings), atol=2e-3)


@pytest.mark.parametrize("engine", ["kernel", "torch"])
@pytest.mark.parametrize("cell", TORCH_LAYERS)
def test_both_engines_have_the_losses_of_a_cpu(cell: str, engine: str) -> None:
    settings: dict[str, Any] = {"cell": cell, "dropout": 0.0}
    found = losses("cuda", engine=engine, **settings)
    np.testing.assert_allclose(found, losses("cpu", **settings), atol=2e-3)


RANDOM_MASKS = {
    "bigrams": 64,
    "dropout": 0.3,
    "weight_dropout": 0.2,
    "embedding_dropout": 0.1,
    "activation_penalty": 1.0,
    "temporal_penalty": 1.0,
    "label_smoothing": 0.05,
}

VARIANTS: list[dict[str, Any]] = [
    {},
    {"zoneout": 0.1},
    {"bidirectional": True, "look_ahead": 4},
    {"between": "highway", "head": "all"},
    {"dropout_mask": "window"},
    {"ema": 0.99, "l1": 1e-6},
    {"cell": "gru", "precision": "bf16"},
    {"optimizer": "nt-asgd"},
    {"optimizer": "muon"},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_recorded_steps_have_the_losses_of_steps_that_are_not(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(device="cuda", **{"precision": "fp32"} | RANDOM_MASKS | settings)
    recorded = Trainer(CORPUS, config)
    found = losses_of(recorded)
    assert recorded.gradient.shards[0].shards[0].recorded.graph is not None  # type: ignore[union-attr]
    monkeypatch.setattr("charlstm.training.cuda_graph.EAGER_STEPS", STEPS)
    np.testing.assert_allclose(losses_of(Trainer(CORPUS, config)), found, atol=2e-3)


def test_the_streams_may_be_divided_in_time() -> None:
    """Each part draws the masks of the whole batch, and the graphs share their memory."""
    settings: dict[str, Any] = RANDOM_MASKS
    whole, parts = (losses("cuda", accumulate=k, **settings) for k in (1, 2))
    np.testing.assert_allclose(parts, whole, atol=1e-3)


def test_ranks_that_share_a_gpu_have_the_losses_of_one(tmp_path: Path) -> None:
    corpus = tmp_path / "text"
    corpus.write_text(ENGLISH[:20_000])
    found = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        options = {"--layers": 2, "--hidden": 32, "--dropout": 0.2, "--batch-size": 8, "--seq-len": 16, "--epochs": 1}
        more = ["--processes", 2] if processes == 2 else []
        precise = ["--device", "cuda", "--precision", "fp32"]
        result = run_process("train", corpus, "-o", run, "-q", *chain.from_iterable(options.items()), *precise, *more)
        assert result.code == 0, result.err
        rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        found.append([row["loss_nats"] for row in rows if "loss_nats" in row])
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)


@pytest.mark.parametrize("streams", [64, 1024])
def test_the_gradients_of_half_precision_are_near_those_of_float32(streams: int) -> None:
    """Without scaled gradients, those of 1,024 streams are lost: float16 rounds them to multiples of 6e-8."""
    torch.manual_seed(1)
    ids, targets = (torch.randint(60, (64, streams), device="cuda") for _ in range(2))
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(2)
        model = LanguageModel(replace(ModelConfig(), layers=2, hidden=128), 60, "torch").cuda()
        with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            loss = model.compute_loss(ids, targets, model.initial_state(streams))[0].smoothed
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, exact in gradients[0].items():
        error = (gradients[1][name] - exact).norm() / exact.norm()
        assert error < 0.03, f"{name}: {error:.3f}"


def test_a_run_interrupted_while_steps_are_recorded_continues_as_if_it_was_not(tmp_path: Path) -> None:
    config = make_config(device="cuda", precision="fp32", **RANDOM_MASKS)
    *_, whole = run_training(CORPUS, config, RunFolder(tmp_path / "whole"))
    folder = RunFolder(tmp_path / "parts")
    watch, stop = stop_at(EAGER_STEPS + 5)
    watch(run_training(CORPUS, config, folder, stop=stop))
    *_, finished = run_training(CORPUS, config, folder, resume=True)
    assert isinstance(whole, Finished) and isinstance(finished, Finished)
    ours, theirs = (ModelFile.load(tmp_path / name / "last.safetensors").weights for name in ("parts", "whole"))
    for name, weight in ours.items():
        np.testing.assert_allclose(weight, theirs[name], atol=2e-3)


def test_a_run_that_diverges_rolls_back(tmp_path: Path) -> None:
    """A loss that is not finite leaves recorded steps usable."""
    config = make_config(device="cuda", lr=1e-2)
    events = run_training(CORPUS, config, RunFolder(tmp_path / "run"))
    original, count = shards.Shard.backpropagate, 0

    def diverge(self: shards.Shard, *arguments: Any, **options: Any) -> float:
        nonlocal count
        count += 1
        loss = original(self, *arguments, **options)
        return float("nan") if count == 15 else loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards.Shard, "backpropagate", diverge)
        seen = list(events)
    assert isinstance(seen[-1], Finished)
    steps = [event.loss_nats for event in seen if isinstance(event, Stepped)]
    assert steps[-1] < steps[0]


def test_a_model_trained_on_a_gpu_is_read_without_one(tmp_path: Path) -> None:
    corpus, run = tmp_path / "text", tmp_path / "run"
    corpus.write_text(ENGLISH[:20_000])
    result = charlstm("train", corpus, "-o", run, "--hidden", 128, "--epochs", 2)
    assert result.code == 0, result.err
    assert "cuda, bfloat16" in result.err
    on_gpu, on_cpu = (
        json.loads(run_process("eval", "-m", run, "--json", environ={"CUDA_VISIBLE_DEVICES": visible}).out)
        for visible in ("0", "")
    )
    assert on_gpu["loss_nats"] == pytest.approx(on_cpu["loss_nats"], abs=1e-4)


def test_a_batch_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    corpus = tmp_path / "text"
    corpus.write_text("ab" * 4_000_000)
    options = {"--hidden": 1024, "--layers": 4, "--batch-size": 8192, "--seq-len": 512}
    result = charlstm("train", corpus, "-o", tmp_path / "run", *chain.from_iterable(options.items()))
    assert_fails(result, 1, "not enough memory for a training step on 8192 streams of 512 characters")


def test_no_warning_is_printed_for_dropped_weights() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses("cuda", weight_dropout=0.3)
