"""Divergence: back to the last good state with a lower learning rate, a few times, then an end with advice."""

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
from tests.conftest import ENGLISH, charlstm, one_sentence
from tests.test_training import CORPUS, config, stop_at

Broken = Callable[[Trainer], bool]


def break_gradient(monkeypatch: pytest.MonkeyPatch, broken: Broken) -> None:
    """A gradient that is not finite, at the steps of which `broken` says so."""
    clip = Trainer.clip_gradients
    monkeypatch.setattr(Trainer, "clip_gradients", lambda self: float("inf") if broken(self) else clip(self))


def break_loss(monkeypatch: pytest.MonkeyPatch, broken: Broken, factor: float) -> None:
    """A loss that is so many times what it should be."""
    step = Trainer.step

    def worse(self: Trainer, rate: float) -> float:
        bad = broken(self)
        return step(self, rate) * (factor if bad else 1)

    monkeypatch.setattr(Trainer, "step", worse)


def after(step: int, times: int = 1) -> Broken:
    """True once that many steps were taken, until training has fallen back so many times."""
    return lambda trainer: trainer.progress.step >= step and trainer.progress.setbacks < times


def fallen(events: list[Event]) -> list[RolledBack]:
    return [event for event in events if isinstance(event, RolledBack)]


def test_a_gradient_that_is_not_finite_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_gradient(monkeypatch, after(14))
    folder = RunFolder(tmp_path / "run")
    events = list(run_training(CORPUS, config(schedule="constant"), folder))
    assert fallen(events) == [RolledBack(14, 10, "training diverged at step 15: the loss is no longer a number", 0.5)]
    steps = [event for event in events if isinstance(event, Stepped)]
    assert [event.step for event in steps[:16]] == [*range(1, 15), 11, 12]
    assert steps[15].learning_rate == 0.5 * steps[13].learning_rate
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "done"
    logged = [line for line in folder.read_metrics() if "why" in line]
    assert logged == [
        {"step": 10, "diverged_at_step": 14, "why": fallen(events)[0].reason, "rate_factor": 0.5},
    ]


def test_a_loss_that_is_no_number_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = LanguageModel.compute_loss, 0

    def broken(*arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        losses, *rest = real(*arguments)
        return Losses(*(loss * (float("nan") if taken == 15 else 1) for loss in losses)), *rest

    monkeypatch.setattr(LanguageModel, "compute_loss", broken)
    events = list(run_training(CORPUS, config(), RunFolder(tmp_path / "run")))
    assert [event.to_step for event in fallen(events)] == [10]
    assert all(np.isfinite(w).all() for w in ModelFile.load(tmp_path / "run" / "last.safetensors").weights.values())


def test_a_loss_far_above_its_start_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MAX_RISEN_STEPS", 4)
    break_loss(monkeypatch, after(12), 50)
    (back,) = fallen(list(run_training(CORPUS, config(), RunFolder(tmp_path / "run"))))
    assert (back.step, back.to_step) == (16, 10)
    assert "the loss has risen from 3." in back.reason


def test_a_loss_that_is_high_now_and_then_is_no_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MAX_RISEN_STEPS", 4)
    break_loss(monkeypatch, lambda trainer: trainer.progress.step % 4 > 0, 50)
    assert not fallen(list(run_training(CORPUS, config(), RunFolder(tmp_path / "run"))))


def test_a_validation_loss_that_is_no_number_is_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, read = torch.nn.functional.cross_entropy, 0

    def broken(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal read
        read += 1
        return real(*args, **kwargs) * (float("nan") if read == 2 else 1)

    monkeypatch.setattr("charlstm.evaluation.evaluate.torch.nn.functional.cross_entropy", broken)
    folder = RunFolder(tmp_path / "run")
    (back,) = fallen(list(run_training(CORPUS, config(), folder)))
    assert (back.step, back.to_step) == (20, 10)
    assert "the validation loss is no longer a number" in back.reason
    assert np.isfinite(ModelFile.load(folder.path / "best.safetensors").metrics["validation"]["loss_nats"])


def test_divergence_at_any_rate_ends_with_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        break_gradient(patch, after(14, times=100))
        with pytest.raises(DivergedError, match=r"at step 15.*5 times the run went back.*lower --lr \(0.008 here\)"):
            list(run_training(CORPUS, config(), folder))
        with pytest.raises(DivergedError):  # as it is, it does not go on
            list(run_training(CORPUS, config(), folder, resume=True))
    for name in ("last", "best"):
        assert ModelFile.load(folder.path / f"{name}.safetensors").metrics["step"] == 10
    assert [line["rate_factor"] for line in folder.read_metrics() if "why" in line] == [
        0.5,
        0.25,
        0.125,
        0.0625,
        0.03125,
    ]
    *_, step, _, finished = run_training(CORPUS, config(lr=1e-3, schedule="constant"), folder, resume=True)
    assert isinstance(finished, Finished)
    assert finished.reason == "done"
    assert isinstance(step, Stepped)
    assert step.learning_rate == 1e-3


def test_the_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.txt").write_text(ENGLISH[:2500])
    options = ("--hidden", 8, "--batch-size", 4, "--seq-len", 16, "--epochs", 1, "--set", "training.validate_every=10")
    with monkeypatch.context() as patch:
        break_gradient(patch, after(14))
        once = charlstm("train", "x.txt", *options, "-o", "once")
    assert once.code == 0
    assert "warning: training diverged at step 15" in once.err
    assert "back to step 10, with 0.5 of the learning rate" in once.err
    break_gradient(monkeypatch, after(14, times=100))
    one_sentence(
        charlstm("train", "x.txt", *options, "-o", "often"), 3, "diverged", "lower --lr", "--resume", "step 10"
    )


@pytest.mark.parametrize("step", [3, 9, 17, 24, 30])
def test_falling_back_is_exact_when_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Interrupted before, between and after its three setbacks, a run ends as one that was not."""
    break_gradient(monkeypatch, lambda t: (t.progress.step, t.progress.setbacks) in {(5, 0), (14, 1), (24, 2)})
    list(run_training(CORPUS, config(), RunFolder(tmp_path / "whole")))
    watch, stop = stop_at(step)
    watch(run_training(CORPUS, config(), RunFolder(tmp_path / "parts"), stop=stop))
    list(run_training(CORPUS, config(), RunFolder(tmp_path / "parts"), resume=True))
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


def test_a_batch_too_large_for_the_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")

    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", full)
        with pytest.raises(CharlstmError, match=r"4 streams of 16 characters; lower --batch-size \(4.*--seq-len \(16"):
            list(run_training(CORPUS, config(), folder))
    assert list(run_training(CORPUS, config(), folder, resume=True))[-1].reason == "done"  # type: ignore[union-attr]
