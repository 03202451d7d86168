"""Divergence: roll backs to the last good state with a lower learning rate, then an error with advice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charlstm.errors import CharlstmError, DivergedError
from charlstm.model.language_model import LanguageModel, Losses
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.tensors import read_tensors
from charlstm.training import recovery
from charlstm.training.events import Event, Finished, RolledBack, Stepped
from charlstm.training.run import run_training
from charlstm.training.trainer import Trainer
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ENGLISH
from tests.support.training import CORPUS, make_config, stop_at

pytestmark = pytest.mark.slow

Condition = Callable[[Trainer], bool]


def break_gradient(monkeypatch: pytest.MonkeyPatch, condition: Condition) -> None:
    """Make the gradient infinite at the steps where the condition is true."""
    clip = Trainer.clip_gradients
    monkeypatch.setattr(Trainer, "clip_gradients", lambda self: float("inf") if condition(self) else clip(self))


def break_loss(monkeypatch: pytest.MonkeyPatch, condition: Condition, factor: float) -> None:
    """Multiply the loss by a factor at the steps where the condition is true."""
    step = Trainer.step

    def worse(self: Trainer, rate: float) -> float:
        broken = condition(self)
        return step(self, rate) * (factor if broken else 1)

    monkeypatch.setattr(Trainer, "step", worse)


def after(step: int, rollbacks: int = 1) -> Condition:
    """Return a condition that is true after this many steps, until this many roll backs."""
    return lambda trainer: trainer.progress.step >= step and trainer.progress.setbacks < rollbacks


def find_rollbacks(events: list[Event]) -> list[RolledBack]:
    return [event for event in events if isinstance(event, RolledBack)]


def test_a_gradient_that_is_not_finite_rolls_the_run_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_gradient(monkeypatch, after(14))
    folder = RunFolder(tmp_path / "run")
    events = list(run_training(CORPUS, make_config(schedule="constant"), folder))
    reason = "training diverged at step 15: the loss is not finite"
    assert find_rollbacks(events) == [RolledBack(step=14, to_step=10, reason=reason, rate_factor=0.5)]
    steps = [event for event in events if isinstance(event, Stepped)]
    assert [event.step for event in steps[:16]] == [*range(1, 15), 11, 12]
    assert steps[15].learning_rate == 0.5 * steps[13].learning_rate
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "done"
    logged = [line for line in folder.read_metrics() if "why" in line]
    assert logged == [
        {"step": 10, "diverged_at_step": 14, "why": find_rollbacks(events)[0].reason, "rate_factor": 0.5},
    ]


def test_a_loss_that_is_not_finite_rolls_the_run_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = LanguageModel.compute_loss, 0

    def broken(*arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        losses, *rest = real(*arguments)
        return Losses(*(loss * (float("nan") if taken == 15 else 1) for loss in losses)), *rest

    monkeypatch.setattr(LanguageModel, "compute_loss", broken)
    events = list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "run")))
    assert [event.to_step for event in find_rollbacks(events)] == [10]
    assert all(np.isfinite(w).all() for w in ModelFile.load(tmp_path / "run" / "last.safetensors").weights.values())


def test_a_loss_that_stays_far_above_its_start_rolls_the_run_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "MAX_RISEN_STEPS", 4)
    break_loss(monkeypatch, after(12), 50)
    (back,) = find_rollbacks(list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "run"))))
    assert (back.step, back.to_step) == (16, 10)
    assert "the loss rose from 3." in back.reason


def test_a_loss_that_is_sometimes_high_does_not_roll_the_run_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "MAX_RISEN_STEPS", 4)
    break_loss(monkeypatch, lambda trainer: trainer.progress.step % 4 > 0, 50)
    assert not find_rollbacks(list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "run"))))


def test_a_validation_loss_that_is_not_finite_is_never_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, read = torch.nn.functional.cross_entropy, 0

    def broken(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal read
        read += 1
        return real(*args, **kwargs) * (float("nan") if read == 2 else 1)

    monkeypatch.setattr("charlstm.evaluation.evaluate.cross_entropy", broken)
    folder = RunFolder(tmp_path / "run")
    (back,) = find_rollbacks(list(run_training(CORPUS, make_config(), folder)))
    assert (back.step, back.to_step) == (20, 10)
    assert "the validation loss is not finite" in back.reason
    assert np.isfinite(ModelFile.load(folder.path / "best.safetensors").metrics["validation"]["loss_nats"])


def test_a_run_that_diverges_at_every_rate_ends_with_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        break_gradient(patch, after(14, rollbacks=100))
        with pytest.raises(DivergedError, match=r"at step 15.*after 5 roll backs.*lower --lr \(now 0.008\)"):
            list(run_training(CORPUS, make_config(), folder))
        with pytest.raises(DivergedError):  # with the same settings it fails again
            list(run_training(CORPUS, make_config(), folder, resume=True))
    for name in ("last", "best"):
        assert ModelFile.load(folder.path / f"{name}.safetensors").metrics["step"] == 10
    assert [line["rate_factor"] for line in folder.read_metrics() if "why" in line] == [
        0.5,
        0.25,
        0.125,
        0.0625,
        0.03125,
    ]
    *_, step, _, _, finished = run_training(CORPUS, make_config(lr=1e-3, schedule="constant"), folder, resume=True)
    assert isinstance(finished, Finished)
    assert finished.reason == "done"
    assert isinstance(step, Stepped)
    assert step.learning_rate == 1e-3


def test_the_command_warns_of_a_roll_back_and_fails_with_advice_after_five(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.txt").write_text(ENGLISH[:2500])
    options = ("--hidden", 8, "--batch-size", 4, "--seq-len", 16, "--epochs", 1, "--set", "training.validate_every=10")
    with monkeypatch.context() as patch:
        break_gradient(patch, after(14))
        once = charlstm("train", "x.txt", *options, "-o", "once")
    assert once.code == 0
    assert "warning: training diverged at step 15" in once.err
    assert "back to step 10, with 0.5 of the learning rate" in once.err
    break_gradient(monkeypatch, after(14, rollbacks=100))
    assert_fails(
        charlstm("train", "x.txt", *options, "-o", "often"), 3, "diverged", "lower --lr", "--resume", "step 10"
    )


@pytest.mark.parametrize("step", [3, 9, 17, 24, 30])
def test_a_run_with_roll_backs_is_resumed_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Interrupted before, between and after its three roll backs, a run ends like one that was not interrupted."""
    break_gradient(monkeypatch, lambda t: (t.progress.step, t.progress.setbacks) in {(5, 0), (14, 1), (24, 2)})
    list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "whole")))
    watch, stop = stop_at(step)
    watch(run_training(CORPUS, make_config(), RunFolder(tmp_path / "parts"), stop=stop))
    list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "parts"), resume=True))
    for name in ("last", "best", "state"):
        whole, parts = (read_tensors(tmp_path / run / f"{name}.safetensors")[0] for run in ("whole", "parts"))
        for tensor, value in whole.items():
            np.testing.assert_array_equal(parts[tensor], value, err_msg=f"{name} {tensor}")
    logs = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    for key in ("step", "loss_nats", "validation_loss_nats", "rate_factor"):
        assert [line.get(key) for line in logs[0]] == [line.get(key) for line in logs[1]]


def test_running_out_of_memory_names_the_batch_size_and_the_window_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")

    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", full)
        with pytest.raises(
            CharlstmError, match=r"4 streams of 16 characters; .*lower --batch-size \(now 4.*--seq-len \(now 16"
        ):
            list(run_training(CORPUS, make_config(), folder))
    assert list(run_training(CORPUS, make_config(), folder, resume=True))[-1].reason == "done"  # type: ignore[union-attr]
