"""Training: the order of events, exact resumption, starting from another model's weights."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import charlstm
from charlstm.cells import CELLS
from charlstm.config import OPTIMIZER_NAMES, TrainingConfig
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError, UsageError
from charlstm.evaluation.evaluate import evaluate
from charlstm.evaluation.streams import Streams
from charlstm.model.language_model import LanguageModel
from charlstm.model.layers import TORCH_LAYERS
from charlstm.model.loading import load_torch_model
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.state import flatten, unflatten
from charlstm.storage.tensors import read_tensors
from charlstm.training.averaging import WeightAverage
from charlstm.training.clock import Clock
from charlstm.training.events import BestEvaluated, Finished, Started, Stepped, Validated
from charlstm.training.optimizer import Optimizer
from charlstm.training.progress import Progress
from charlstm.training.run import TrainingRun, run_training
from charlstm.training.schedule import learning_rate
from charlstm.training.trainer import Trainer
from tests.support.texts import ENGLISH
from tests.support.training import CORPUS, TRAINING, make_config, stop_at

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "settings",
    [
        {"engine": "torch"},
        {"engine": "kernel"},
        {"zoneout": 0.1},
        {"bidirectional": True},
        {"between": "highway"},
        {"bigrams": 9},
    ],
    ids=str,
)
def test_a_step_leaves_no_graph_behind(settings: dict[str, Any]) -> None:
    """What keeps one alive takes memory, and on a GPU makes it impossible to record the next step."""
    trainer = Trainer(CORPUS, make_config(threads=1, weight_dropout=0.2, embedding_dropout=0.1, **settings))
    trainer.step(1e-3)
    assert not [a for a in gc.get_objects() if type(a) is torch.Tensor and a.grad_fn is not None]


def test_events_come_in_the_order_started_steps_and_validations_finished(tmp_path: Path) -> None:
    started, *middle, finished = run_training(CORPUS, make_config(), RunFolder(tmp_path / "run"))
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert finished.reason == "done"
    assert finished.step == started.total_steps == 2 * started.steps_per_epoch
    steps = [event for event in middle if isinstance(event, Stepped)]
    assert [event.step for event in steps] == list(range(1, started.total_steps + 1))
    assert [event.step for event in middle if isinstance(event, Validated)] == [
        *range(10, started.total_steps, 10),
        started.total_steps,
    ]
    assert steps[-1].loss_nats < steps[0].loss_nats
    assert all(before.fraction_done < after.fraction_done for before, after in pairwise(steps))


def test_validations_that_read_a_part_read_the_same_part_and_the_end_reads_all(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    *_, best, finished = run_training(CORPUS, make_config(validation_chars=100), folder)
    assert isinstance(best, BestEvaluated)
    assert isinstance(finished, Finished)
    lines = folder.read_metrics()
    parts = [line["validation_characters"] for line in lines if "validation_characters" in line]
    assert len(parts) > 1
    assert set(parts) == {100}
    assert best.validation_characters == lines[-1]["best_validation_characters"] == 250
    file = ModelFile.load(folder.path / "best.safetensors")
    assert file.metrics["validation"]["characters"] == 250
    assert file.metrics["validation"]["loss_nats"] == best.validation_loss_nats
    whole, ids = evaluate_whole(file), CORPUS.split((0.9, 0.1)).part("val")
    assert best.validation_loss_nats == pytest.approx(whole, abs=1e-6)
    assert len(ids) == 250


def evaluate_whole(file: ModelFile) -> float:
    """Return the loss of a model on the validation part of the corpus."""
    ids = CORPUS.split((0.9, 0.1)).part("val")
    metrics = evaluate(load_torch_model(file), ids, file.vocabulary.bos, 250)
    assert metrics is not None
    return metrics.loss_nats


def test_the_end_compares_losses_of_the_same_weights_on_text_of_both_parts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    *_, best, _ = run_training(CORPUS, make_config(epochs=8, dropout=0.8), folder)
    assert isinstance(best, BestEvaluated)
    file = ModelFile.load(folder.path / "best.safetensors")
    train = CORPUS.split((0.9, 0.1)).part("train")
    spans = Streams.for_evaluation(len(train), 250).spans
    read = evaluate(load_torch_model(file), train, file.vocabulary.bos, 250, limit=250)
    assert read is not None
    assert sum(last - first for first, last in spans) == read.characters
    assert best.train_loss_nats == pytest.approx(read.loss_nats, abs=1e-6)
    assert best.validation_loss_nats == pytest.approx(file.metrics["validation"]["loss_nats"])
    during = [line["loss_nats"] for line in folder.read_metrics() if "validation_loss_nats" in line]
    assert best.train_loss_nats < during[-1]  # that was measured with dropout


def test_a_stopped_run_reads_the_validation_part_when_it_is_resumed_and_ends(tmp_path: Path) -> None:
    folder, settings = RunFolder(tmp_path / "run"), make_config(validation_chars=100)
    watch, stop = stop_at(15)
    seen = watch(run_training(CORPUS, settings, folder, stop=stop))
    assert not any(isinstance(event, BestEvaluated) for event in seen)
    seen = list(run_training(CORPUS, settings, folder, resume=True))
    assert isinstance(seen[-2], BestEvaluated)
    assert len([line for line in folder.read_metrics() if "best_step" in line]) == 1


@pytest.mark.parametrize(("used", "left"), [(0, 80), (50, 30), (99, 5)])
def test_a_time_limit_counts_from_the_start_of_the_command(used: float, left: float) -> None:
    """Reading a large text takes part of the time, but a quarter of it is left for training in any case."""
    trainer = Trainer(CORPUS, make_config(max_time=100.0, epochs=100_000))
    clock = Clock(trainer, RunFolder(Path("run")), monotonic() - used - 20)
    trainer.progress.training_seconds = 20.0
    clock.update()
    assert trainer.progress.seconds == pytest.approx(used + 20, abs=1)
    assert clock.fraction_done == pytest.approx(20 / (20 + left), abs=0.02)


def test_the_last_reading_takes_what_is_left_of_the_time_for_other_things() -> None:
    trainer = Trainer(CORPUS, make_config(max_time=100.0, validation_chars=50))
    clock = Clock(trainer, RunFolder(Path("run")), monotonic())
    clock.reading_seconds_per_char = 0.01
    assert clock.last_reading_chars == 250  # 2.5 seconds are under 5 % of the time
    clock.reading_seconds_per_char = 0.1
    trainer.progress.seconds, trainer.progress.training_seconds = 90.0, 83.0
    assert clock.last_reading_seconds == pytest.approx(3)  # 7 of the 10 % are spent
    assert clock.last_reading_chars == 50  # as much as a validation reads, at least
    clock.reading_seconds_per_char = 0.02
    assert clock.last_reading_chars == 150


def test_a_run_with_a_time_limit_does_not_validate_shortly_before_its_end(tmp_path: Path) -> None:
    trainer = Trainer(CORPUS, make_config(max_time=100.0, validate_every=40, epochs=10_000))
    run = TrainingRun(trainer, RunFolder(tmp_path), None, lambda: False)
    trainer.progress.step = 400
    for done, due in ((0.5, True), (0.97, False), (1.0, True)):
        run.clock.fraction_done = done
        assert run.is_validation_due() is due


def test_the_best_model_is_the_one_with_the_lowest_validation_loss(tmp_path: Path) -> None:
    events = list(run_training(CORPUS, make_config(lr=0.05), RunFolder(tmp_path / "run")))
    losses = [event.metrics.loss_nats for event in events if isinstance(event, Validated)]
    best = ModelFile.load(tmp_path / "run" / "best.safetensors")
    assert best.metrics["validation"]["loss_nats"] == min(losses) == events[-1].best_loss_nats  # type: ignore[union-attr]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["validation_loss_nats"] for line in lines if "validation_loss_nats" in line] == losses


@pytest.mark.parametrize(
    ("cell", "engine", "step"),
    [("lstm", "torch", step) for step in (1, 7, 10, 33, 38)]
    + [(cell, "kernel", 33) for cell in CELLS]
    + [(cell, "torch", 7) for cell in TORCH_LAYERS],
)
def test_a_run_interrupted_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, cell: str, engine: str, step: int
) -> None:
    settings = make_config(cell=cell, engine=engine)
    list(run_training(CORPUS, settings, RunFolder(tmp_path / "whole")))
    watch, stop = stop_at(step)
    seen = watch(run_training(CORPUS, settings, RunFolder(tmp_path / "parts"), stop=stop))
    assert seen[-1].reason == "stopped"
    torch.manual_seed(99)
    list(run_training(CORPUS, settings, RunFolder(tmp_path / "parts"), resume=True))
    for name in ("last", "best"):
        whole, _ = read_tensors(tmp_path / "whole" / f"{name}.safetensors")
        parts, _ = read_tensors(tmp_path / "parts" / f"{name}.safetensors")
        for tensor, value in whole.items():
            np.testing.assert_array_equal(parts[tensor], value, err_msg=f"{name} {tensor}")


VARIANTS = [
    *({"optimizer": name, "lr": 0.01} for name in OPTIMIZER_NAMES),
    *({"schedule": name} for name in ("linear", "plateau", "constant")),
    {"ema": 0.99},
    {"clip": 0.0},
    {"weight_dropout": 0.2, "embedding_dropout": 0.1, "dropout_mask": "window", "l1": 1e-4, "label_smoothing": 0.1},
    {"activation_penalty": 1.0, "temporal_penalty": 1.0, "zoneout": 0.1, "between": "highway", "head": "all"},
    {"bidirectional": True, "look_ahead": 5, "joint_weight": 2.0, "activation_penalty": 1.0},
]


@pytest.mark.parametrize("changed", VARIANTS, ids=str)
def test_resuming_is_exact_with_every_optimizer_schedule_and_regularization(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    settings = make_config(**{"validate_every": 4, "seq_len": 32} | changed)
    seen = list(run_training(CORPUS, settings, RunFolder(tmp_path / "whole")))
    losses = [event.loss_nats for event in seen if isinstance(event, Stepped)]
    assert losses[-1] < losses[0]
    watch, stop = stop_at(len(losses) * 2 // 3)
    watch(run_training(CORPUS, settings, RunFolder(tmp_path / "parts"), stop=stop))
    list(run_training(CORPUS, settings, RunFolder(tmp_path / "parts"), resume=True))
    for name in ("last", "best", "state"):
        whole, parts = (read_tensors(tmp_path / run / f"{name}.safetensors")[0] for run in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        for tensor, value in whole.items():
            np.testing.assert_array_equal(parts[tensor], value, err_msg=f"{name} {tensor}")


def test_the_saved_model_has_the_averaged_weights(tmp_path: Path) -> None:
    *_, validated, _, finished = run_training(CORPUS, make_config(ema=0.9, epochs=1), RunFolder(tmp_path / "run"))
    assert isinstance(validated, Validated)
    assert isinstance(finished, Finished)
    model = ModelFile.load(tmp_path / "run" / "last.safetensors")
    state, _ = read_tensors(tmp_path / "run" / "state.safetensors")
    trained, averaged = state["model/head.weight"], model.weights["head.weight"]
    assert 0 < np.abs(trained - averaged).max() < 1
    ids = model.vocabulary.encode(ENGLISH[:2500])[-250:]
    network = LanguageModel(model.config.model, model.vocabulary.size)
    network.load_weights(model.weights)
    found = evaluate(network, ids, model.vocabulary.bos, 250)
    assert found is not None
    assert found.loss_nats == pytest.approx(validated.metrics.loss_nats, abs=1e-5)


def test_a_moving_average_forgets_early_weights_and_nt_asgd_averages_from_a_plateau_on() -> None:
    model = torch.nn.Linear(1, 1, bias=False)

    def set_weight(value: float) -> None:
        torch.nn.init.constant_(model.weight, value)

    set_weight(100.0)
    moving = WeightAverage(model, TrainingConfig(ema=0.9))
    for _ in range(200):
        set_weight(1.0)
        moving.update()
    with moving.applied():
        assert model.weight.item() == pytest.approx(1.0, abs=1e-3)
    mean = WeightAverage(model, TrainingConfig(optimizer="nt-asgd"))
    for loss in (3.0, 2.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0):
        mean.update()
        mean.observe_loss(loss)
        assert not mean.started
    mean.observe_loss(2.0)
    assert mean.started
    for value in (1.0, 2.0, 6.0):
        set_weight(value)
        mean.update()
    with mean.applied():
        assert model.weight.item() == 3.0
    assert model.weight.item() == 6.0


def test_patience_ends_a_run_whose_validation_loss_no_longer_falls(tmp_path: Path) -> None:
    settings = make_config(lr=0.3, schedule="constant", patience=3, epochs=50, ema=0.0)
    *events, finished = run_training(CORPUS, settings, RunFolder(tmp_path / "run"))
    losses = [event.metrics.loss_nats for event in events if isinstance(event, Validated)]
    assert isinstance(finished, Finished)
    assert finished.reason == "patience"
    assert losses.index(min(losses)) == len(losses) - 4
    (again,) = [
        e for e in run_training(CORPUS, settings, RunFolder(tmp_path / "run"), resume=True) if isinstance(e, Finished)
    ]
    assert again.steps == 0


def test_the_plateau_schedule_halves_the_rate_and_the_linear_one_is_straight() -> None:
    progress = Progress()
    for loss in (3.0, 2.0, 2.1, 2.2, 2.1, 2.1, 1.0, 1.1):
        progress.record_validation(loss)
    assert progress.plateaus == 2
    plateau = TrainingConfig(lr=1.0, schedule="plateau")
    assert learning_rate(plateau, 0.5, progress.plateaus) == 0.25
    line = TrainingConfig(lr=1.0, schedule="linear", warmup=0.0, final_lr=0.0)
    assert [learning_rate(line, done) for done in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]
    assert learning_rate(TrainingConfig(lr=1.0, schedule="constant"), 0.9) == 1.0


@pytest.mark.parametrize("cell", CELLS)
def test_resuming_is_exact_in_bfloat16(tmp_path: Path, cell: str) -> None:
    settings = make_config(cell=cell, precision="bf16", epochs=1)
    list(run_training(CORPUS, settings, RunFolder(tmp_path / "whole")))
    watch, stop = stop_at(7)
    watch(run_training(CORPUS, settings, RunFolder(tmp_path / "parts"), stop=stop))
    list(run_training(CORPUS, settings, RunFolder(tmp_path / "parts"), resume=True))
    whole, parts = (read_tensors(tmp_path / name / "last.safetensors")[0] for name in ("whole", "parts"))
    for tensor, value in whole.items():
        np.testing.assert_array_equal(parts[tensor], value)


def test_a_killed_run_resumes_from_its_last_save_between_validations(tmp_path: Path) -> None:
    settings = make_config(validate_every=10**6, save_every=1e-6)
    list(run_training(CORPUS, settings, RunFolder(tmp_path / "whole")))
    killed = run_training(CORPUS, settings, RunFolder(tmp_path / "parts"))
    while not (isinstance(event := next(killed), Stepped) and event.step == 23):
        pass
    assert isinstance(killed, Generator)
    killed.close()
    again = list(run_training(CORPUS, settings, RunFolder(tmp_path / "parts"), resume=True))
    assert isinstance(again[0], Started)
    assert again[0].step == 23
    whole, parts = (read_tensors(tmp_path / name / "last.safetensors")[0] for name in ("whole", "parts"))
    for tensor, value in whole.items():
        np.testing.assert_array_equal(parts[tensor], value)


def test_a_run_stopped_before_a_validation_validates_when_it_is_resumed(tmp_path: Path) -> None:
    list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "whole")))
    watch, stop = stop_at(20)
    watch(run_training(CORPUS, make_config(), RunFolder(tmp_path / "parts"), stop=stop))
    list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "parts"), resume=True))
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    for key in ("step", "loss_nats", "validation_loss_nats"):
        assert [line.get(key) for line in logs[0]] == [line.get(key) for line in logs[1]]


def test_a_run_stopped_before_its_first_step_can_be_resumed(tmp_path: Path) -> None:
    assert list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "run"), stop=lambda: True))[-1].step == 0
    list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "run"), resume=True))
    list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "whole")))
    whole, parts = (read_tensors(tmp_path / name / "last.safetensors")[0] for name in ("whole", "run"))
    np.testing.assert_array_equal(parts["head.weight"], whole["head.weight"])


def test_the_metrics_of_a_resumed_run_have_each_step_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    watch, stop = stop_at(25)
    watch(run_training(CORPUS, make_config(), folder, stop=stop))
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "loss_nats": 1}\n{"step": 31, "lo')
    list(run_training(CORPUS, make_config(), folder, resume=True))
    lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "best_step" not in line]
    assert steps == sorted(set(steps))
    assert len(lines) == len(steps) + 1


def test_sampling_from_a_run_while_it_trains_changes_nothing(tmp_path: Path) -> None:
    list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "alone")))
    for event in run_training(CORPUS, make_config(), RunFolder(tmp_path / "watched")):
        if isinstance(event, Validated):
            list(charlstm.load(tmp_path / "watched").generate("", seed=1))
    alone, watched = (read_tensors(tmp_path / name / "last.safetensors")[0] for name in ("alone", "watched"))
    for name, value in alone.items():
        np.testing.assert_array_equal(watched[name], value)


def test_runs_with_the_same_seed_are_the_same_and_with_another_seed_different(tmp_path: Path) -> None:
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        list(run_training(CORPUS, make_config(seed=seed), RunFolder(tmp_path / name)))
        runs.append((tmp_path / name / "state.safetensors", read_tensors(tmp_path / name / "best.safetensors")[0]))
    assert all(np.array_equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])
    assert not np.array_equal(runs[0][1]["head.weight"], runs[2][1]["head.weight"])


def test_a_run_on_a_corpus_that_changed_is_not_resumed(tmp_path: Path) -> None:
    watch, stop = stop_at(5)
    watch(run_training(CORPUS, make_config(), RunFolder(tmp_path / "run"), stop=stop))
    with pytest.raises(CharlstmError, match="the corpus has changed"):
        list(run_training(Corpus.from_text(ENGLISH[:2499]), make_config(), RunFolder(tmp_path / "run"), resume=True))


def test_init_from_takes_over_weights_character_by_character(tmp_path: Path) -> None:
    list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "first")))
    first = ModelFile.load(tmp_path / "first" / "best.safetensors")
    corpus = Corpus.from_text(ENGLISH[2500:5000].replace("e", "é"))
    trainer = Trainer(corpus, make_config())
    fresh = trainer.init_from(first)
    assert set(fresh) == set(ENGLISH[2500:5000].replace("e", "é")) - set(ENGLISH[:2500])
    assert "é" in fresh
    weights = trainer.model.export_weights()
    np.testing.assert_array_equal(weights["layers.1.weight_hh"], first.weights["layers.1.weight_hh"])
    here, there = trainer.vocabulary.encode("a")[0], first.vocabulary.encode("a")[0]
    for name in ("embedding.weight", "head.weight", "head.bias"):
        np.testing.assert_array_equal(weights[name][here], first.weights[name][there])
    with pytest.raises(UsageError, match="hidden is 12 in that model and 13 here"):
        Trainer(corpus, make_config(hidden=13)).init_from(first)


def test_init_from_takes_over_the_rows_of_pairs_only_with_the_same_symbols(tmp_path: Path) -> None:
    """With others, a pair has another row, and those of another pair would be no better than zeros."""
    list(run_training(CORPUS, make_config(bigrams=60), RunFolder(tmp_path / "first")))
    first = ModelFile.load(tmp_path / "first" / "best.safetensors")
    assert first.weights["bigrams.weight"].any()
    same, other = (Trainer(corpus, make_config(bigrams=60)) for corpus in (CORPUS, Corpus.from_text("ab§" * 500)))
    for trainer in (same, other):
        trainer.init_from(first)
    rows = same.model.export_weights()["bigrams.weight"]
    np.testing.assert_array_equal(rows, first.weights["bigrams.weight"])
    assert not other.model.export_weights()["bigrams.weight"].any()


def test_max_time_ends_training(tmp_path: Path) -> None:
    *_, finished = run_training(CORPUS, make_config(max_time=1.0, epochs=100_000), RunFolder(tmp_path / "run"))
    assert isinstance(finished, Finished)
    assert finished.reason == "done"
    assert finished.step < 100_000
    assert ModelFile.load(tmp_path / "run" / "last.safetensors").metrics["step"] == finished.step


def test_the_learning_rate_rises_in_the_warmup_and_then_falls() -> None:
    training = TrainingConfig(lr=1.0, warmup=0.1, final_lr=0.05)
    rates = [learning_rate(training, done / 100) for done in range(101)]
    assert rates.index(max(rates)) == 10
    assert rates[0] == pytest.approx(0.01)
    assert rates[10] == pytest.approx(1)
    assert rates[-1] == pytest.approx(0.05)
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("adamw", lambda weights: torch.optim.AdamW(weights, lr=0.1, betas=(0.8, 0.9), weight_decay=0.5, fused=True)),
        ("adam", lambda weights: torch.optim.Adam(weights, lr=0.1, betas=(0.8, 0.9), weight_decay=0.5, fused=True)),
        ("rmsprop", lambda weights: torch.optim.RMSprop(weights, lr=0.1, alpha=0.9, weight_decay=0.5)),
        ("adagrad", lambda weights: torch.optim.Adagrad(weights, lr=0.1, weight_decay=0.5)),
        ("sgd", lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.5)),
        ("nt-asgd", lambda weights: torch.optim.SGD(weights, lr=0.1, weight_decay=0.5)),
    ],
)
def test_an_optimizer_steps_as_that_of_torch(
    name: str, reference: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
) -> None:
    ours, theirs = (nn.Linear(3, 4, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    settings = TrainingConfig(optimizer=name, weight_decay=0.5, beta1=0.8, beta2=0.9)
    optimizer, expected = Optimizer(ours, settings), reference(theirs.parameters())
    for step in range(5):
        ours.weight.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        theirs.weight.grad = ours.weight.grad.clone()
        optimizer.step(0.1)
        expected.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=1e-7)


def test_training_does_not_import_the_compiler_of_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from charlstm.cli.app import main\n"
        "status = main(); assert 'torch._dynamo' not in sys.modules; sys.exit(status)"
    )
    corpus = tmp_path / "a.txt"
    corpus.write_text("abcd" * 500)
    arguments = ("train", str(corpus), "-o", str(tmp_path / "run"), "--hidden", "8", "--epochs", "1")
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_weight_decay_leaves_biases_and_embedding_alone() -> None:
    model = Trainer(CORPUS, make_config()).model
    (decayed, decay, _), (undecayed, none, _) = Optimizer(model, TRAINING).groups
    assert decay == TRAINING.weight_decay
    assert none == 0
    assert {p.ndim for p in decayed} == {2}
    assert any(p is model.embedding.weight for p in undecayed)
    assert len(decayed) + len(undecayed) == len(list(model.parameters()))


def test_a_state_tree_is_the_same_after_flattening_and_unflattening() -> None:
    tree: dict[str, Any] = {
        "a": {"b.c": {"d": np.arange(3)}, "e": 1},
        "f": [1, 2],
        "g": {"h": {"i": 2**100}},
        "j": np.zeros(()),
    }
    again = unflatten(*flatten(tree))
    np.testing.assert_array_equal(again["a"]["b.c"].pop("d"), tree["a"]["b.c"].pop("d"))
    assert again.pop("j").shape == tree.pop("j").shape
    assert again == tree


def test_charlstm_train_trains_on_a_file_and_rejects_a_folder_with_a_run(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(ENGLISH[:2500])
    *_, finished = charlstm.train(tmp_path / "text.txt", make_config(epochs=1), "here")
    assert isinstance(finished, Finished)
    assert finished.reason == "done"
    assert charlstm.load("here").score("the").shape == (3,)
    with pytest.raises(UsageError, match="already holds a run"):
        list(charlstm.train("text.txt", make_config(), "here"))
