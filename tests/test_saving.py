"""Saving a run: when, which files, free space, temporary files, and saves in the background."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from charlstm.errors import CharlstmError
from charlstm.storage.files import link_atomically
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.tensors import read_tensors
from charlstm.training.clock import Clock
from charlstm.training.events import BestEvaluated, Stepped, Validated
from charlstm.training.run import run_training
from charlstm.training.trainer import Trainer
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ENGLISH, SMALL
from tests.support.training import CORPUS, make_config, stop_at

pytestmark = pytest.mark.slow


def list_kept(run: Path) -> list[str]:
    """Return the names of the models of `--keep`, and of files with similar names."""
    return sorted(path.name for path in run.glob("step-*"))


def test_keep_keeps_the_models_of_the_last_validations(tmp_path: Path) -> None:
    run = tmp_path / "run"
    watch, stop = stop_at(35)
    watch(run_training(CORPUS, make_config(keep=2, lr=0.05), RunFolder(run), stop=stop))
    assert list_kept(run) == ["step-000020.safetensors", "step-000030.safetensors"]
    list(run_training(CORPUS, make_config(keep=3, lr=0.05), RunFolder(run), resume=True))
    assert list_kept(run) == ["step-000050.safetensors", "step-000060.safetensors", "step-000070.safetensors"]
    for name in list_kept(run):
        model = ModelFile.load(run / name)
        assert f"step-{model.metrics['step']:06}.safetensors" == name
        assert model.metrics["validation"]["loss_nats"] > 0
    assert (run / "best.safetensors").exists()
    assert charlstm("sample", "-m", run / "step-000060.safetensors", "-l", 5).code == 0
    list(run_training(CORPUS, make_config(epochs=1), RunFolder(run), overwrite=True))
    assert list_kept(run) == []


def test_files_of_the_user_are_not_removed_as_kept_models(tmp_path: Path) -> None:
    for name in ("step-mine.safetensors", "step-1.safetensors"):
        (tmp_path / name).write_text("mine")
    list(run_training(CORPUS, make_config(epochs=1, keep=1), RunFolder(tmp_path), overwrite=True))
    assert list_kept(tmp_path) == ["step-000035.safetensors", "step-1.safetensors", "step-mine.safetensors"]


def test_a_save_without_enough_free_space_writes_nothing(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert charlstm("train", corpus, *SMALL, "--epochs", 1, "-o", "run").code == 0
    before = {path.name: path.read_bytes() for path in Path("run").glob("*.safetensors")}
    real = os.statvfs

    def full(path: Any) -> os.statvfs_result:
        blocks = list(real(path)[:10])
        blocks[4] = 3
        return os.statvfs_result(blocks)

    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", full)
        result = charlstm("train", "--resume", "-o", "run", "--epochs", 2)
    hint = "0.0 MB free; free disk space and continue with --resume"
    assert_fails(result, 1, "cannot write run: a save needs", "MB and the disk has", hint)
    assert {path.name: path.read_bytes() for path in Path("run").glob("*.safetensors")} == before
    assert charlstm("train", "--resume", "-o", "run", "--epochs", 2).code == 0


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    list(run_training(CORPUS, make_config(epochs=1), RunFolder(run)))
    for name in (".state.safetensors.abc.part", ".step-000010.safetensors.7.part"):
        (run / name).write_bytes(b"half")
    (run / ".mine.part").write_bytes(b"mine")
    list(run_training(CORPUS, make_config(epochs=2), RunFolder(run), resume=True))
    assert [path.name for path in run.glob(".*")] == [".mine.part"]


def test_training_works_on_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", fail)
    run = tmp_path / "run"
    list(run_training(CORPUS, make_config(keep=1), RunFolder(run)))
    assert (run / "good.safetensors").read_bytes() == (run / "state.safetensors").read_bytes()
    assert len(list_kept(run)) == 1
    with pytest.raises(CharlstmError, match="cannot write"):
        link_atomically(run / "nothing", run / "else")


def test_a_run_with_a_time_limit_is_saved_before_its_last_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch queue that kills it during the validation loses nothing."""
    folder = RunFolder(tmp_path / "run")
    settings = make_config(max_time=1000.0, validate_every=10**6)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate_part", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(run_training(CORPUS, settings, folder))
    assert ModelFile.load(folder.path / "last.safetensors").metrics["step"] == 70
    seen = list(run_training(CORPUS, settings, folder, resume=True))
    assert [type(event) for event in seen[1:-1]] == [Validated, BestEvaluated]


def test_the_clock_reserves_time_for_the_last_step_save_and_validation() -> None:
    trainer = Trainer(CORPUS, make_config(max_time=100.0))
    folder = RunFolder(Path("run"))
    clock = Clock(trainer, folder, monotonic())
    clock.record_step(30.0)  # the first step, with compilation
    clock.record_step(0.5)
    clock.seconds_per_step = 0.5
    at_exit = 0.3
    reading = 0.5 * 250 / 64  # the validation part has 250 characters, and as many of the training part are read
    assert clock.reserved_seconds == pytest.approx(1.2 * (0.5 + 2 * reading) + at_exit)
    folder.save_seconds, clock.validation_seconds = 4.0, 10.0
    assert clock.reserved_seconds == pytest.approx(1.2 * (0.5 + 2 * 4 + 10 + reading) + at_exit)
    trainer.progress.training_seconds = 60.0
    clock.started_at -= 100 - clock.reserved_seconds
    clock.update()
    assert clock.fraction_done >= 1
    clock.validation_seconds = 1000.0
    assert clock.reserved_seconds == 50.0


@pytest.mark.parametrize("step", [1, 10, 33])
def test_a_run_whose_corpus_came_through_a_pipe_is_resumed_exactly(tmp_path: Path, step: int) -> None:
    text, options = ENGLISH[:2500].encode(), (*SMALL, "--set", "training.validate_every=10", "--epochs", 2)
    whole = charlstm("train", "-", *options, "-o", "whole", stdin=text)
    assert whole.code == 0, whole.err
    steps = 0

    def interrupt(self: Trainer, rate: float) -> float:
        nonlocal steps
        steps += 1
        if steps == step:
            os.kill(os.getpid(), signal.SIGHUP)
        return real(self, rate)

    real = Trainer.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", interrupt)
        stopped = charlstm("train", "-", *options, "-o", "parts", stdin=text)
    assert stopped.code == 128 + signal.SIGHUP
    assert charlstm("train", "--resume", "-o", "parts").code == 0
    for name in ("last", "best", "state"):
        ours, theirs = (read_tensors(Path(run) / f"{name}.safetensors")[0] for run in ("parts", "whole"))
        for tensor, value in theirs.items():
            np.testing.assert_array_equal(ours[tensor], value, err_msg=f"{name} {tensor}")


def test_a_failed_save_in_the_background_ends_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, writes = RunFolder(tmp_path / "run"), 0
    real = RunFolder.write_files

    def failing(self: RunFolder, *arguments: Any) -> None:
        nonlocal writes
        writes += 1
        if writes == 4:
            raise CharlstmError("cannot write run: No space left on device")
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_files", failing)
        with pytest.raises(CharlstmError, match="No space left"):
            list(run_training(CORPUS, make_config(save_every=1e-6), folder))
    assert writes == 4
    assert ModelFile.load(folder.path / "last.safetensors").metrics["step"] == 2
    assert list(run_training(CORPUS, make_config(), folder, resume=True))[-1].reason == "done"  # type: ignore[union-attr]


def test_a_save_in_the_background_writes_the_run_as_it_was_when_the_save_began(tmp_path: Path) -> None:
    """Training continues meanwhile, but every array on the disk is of the same step."""
    late, written = RunFolder(tmp_path / "late"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save_in_background", lambda self, *saved, best: written.append(saved))
        training = run_training(CORPUS, make_config(save_every=1e-6, validate_every=10**6), late)
        while not (isinstance(event := next(training), Stepped) and event.step == 20):
            pass
    late.save_in_background(*written[4])
    late.wait_for_save()
    watch, stop = stop_at(5)
    watch(run_training(CORPUS, make_config(validate_every=10**6), RunFolder(tmp_path / "then"), stop=stop))
    for name in ("last", "state"):
        ours, theirs = (read_tensors(tmp_path / run / f"{name}.safetensors")[0] for run in ("late", "then"))
        for tensor, value in theirs.items():
            np.testing.assert_array_equal(ours[tensor], value, err_msg=f"{name} {tensor}")


def test_changing_a_fixed_setting_on_resume_is_rejected_and_the_error_lists_those_that_can_change(corpus: Path) -> None:
    assert charlstm("train", corpus, *SMALL, "--epochs", 1, "-o", "run").code == 0
    rejected = charlstm("train", "--resume", "-o", "run", "--batch-size", 8)
    assert_fails(
        rejected,
        2,
        "--batch-size is 8 here and 4 in the run",
        "only these can change: about, accumulate, device, engine, epochs",
    )
    changed = charlstm("train", "--resume", "-o", "run", "--epochs", 2, "--lr", 1e-3, "--keep", 1, "--save-every", "5m")
    assert changed.code == 0, changed.err


def file_contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_resumed_run_that_trains_nothing_changes_no_file(corpus: Path) -> None:
    assert charlstm("train", corpus, *SMALL, "--epochs", 2, "-o", "run").code == 0
    with Path("run/metrics.jsonl").open("a") as file:
        file.write('{"step": 10')  # what a killed process may leave
    Path("run/good.safetensors").unlink()
    before = file_contents("run")
    for options in (("--epochs", 1), ("--epochs", 1, "--lr", 1e-3, "--keep", 2), ("--max-time", "0.001s"), ()):
        resumed = charlstm("train", "--resume", "-o", "run", *options)
        assert (resumed.code, resumed.text) == (0, "run\n")
        assert "already complete at step" in resumed.err
        assert file_contents("run") == before, options


def test_a_resumed_run_that_is_out_of_patience_changes_no_file(corpus: Path) -> None:
    options = ("--epochs", 40, "--lr", 0.5, "--patience", 1, "--set", "training.validate_every=10")
    assert "without a better loss" in charlstm("train", corpus, *SMALL, *options, "-o", "run").err
    before = file_contents("run")
    resumed = charlstm("train", "--resume", "-o", "run", "--epochs", 99)
    assert "1 validation without a better loss" in resumed.err
    assert file_contents("run") == before


def test_a_resumed_run_that_fails_or_is_stopped_at_once_changes_no_file(corpus: Path) -> None:
    assert charlstm("train", corpus, *SMALL, "--epochs", 1, "-o", "run").code == 0
    before = file_contents("run")

    def no_memory(self: Trainer, learning_rate: float) -> float:
        raise MemoryError

    def interrupt(self: Trainer, state: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT)
        real(self, state)

    real = Trainer.load_state_dict
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", no_memory)
        failed = charlstm("train", "--resume", "-o", "run", "--epochs", 3)
    assert_fails(failed, 1, "not enough memory")
    assert file_contents("run") == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "load_state_dict", interrupt)
        assert charlstm("train", "--resume", "-o", "run", "--epochs", 3).code == 130
    assert file_contents("run") == before
    rejected = charlstm("train", "--resume", "-o", "run", "--epochs", 3, "--hidden", 99)
    assert_fails(rejected, 2, "--hidden")
    corpus.write_text("another text")
    assert_fails(charlstm("train", "--resume", "-o", "run", "--epochs", 3), 1, "")
    assert file_contents("run") == before


def test_a_state_that_does_not_fit_the_settings_is_rejected_before_the_model_is_built(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    list(run_training(CORPUS, make_config(epochs=1), folder))
    with pytest.raises(CharlstmError, match="weights that do not fit the settings"):
        list(run_training(CORPUS, make_config(hidden=16384, layers=64), folder, resume=True))


def test_saving_more_often_does_not_change_the_losses(tmp_path: Path) -> None:
    seen = [list(run_training(CORPUS, make_config(save_every=s), RunFolder(tmp_path / str(s)))) for s in (0.0, 1e-6)]
    losses = [[event.loss_nats for event in events if isinstance(event, Stepped)] for events in seen]
    assert losses[0] == losses[1]
