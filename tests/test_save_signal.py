"""SIGUSR1 saves a run, which continues as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import charlstm as library
from charlstm.cli.save_signal import SaveSignal
from charlstm.storage.run import RunFolder
from charlstm.storage.state import read_state
from charlstm.storage.tensors import read_tensors
from charlstm.training.events import Finished, Saved, Stepped
from charlstm.training.run import run_training
from charlstm.training.trainer import Trainer
from tests.support.command_line import charlstm
from tests.support.texts import ENGLISH, SMALL
from tests.support.training import CORPUS, make_config

OPTIONS = (*SMALL, "--epochs", "5", "--save-every", "0", "--set", "training.validate_every=1000000", "--no-samples")


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait for a condition that a running process brings about."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, f"the process ended with status {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def catches_usr1(process: subprocess.Popen[bytes]) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGUSR1 - 1) & 1)


@pytest.mark.slow
def test_sigusr1_saves_a_run_at_any_time_without_changing_its_result(tmp_path: Path) -> None:
    text = ENGLISH[:4000].encode()
    undisturbed = charlstm("train", "-", *OPTIONS, "-o", "undisturbed", stdin=text)
    assert undisturbed.code == 0, undisturbed.err
    command = [sys.executable, "-m", "charlstm", "train", "-", *OPTIONS, "-o", "run", "--json"]
    run = Path("run")
    with Path("err").open("wb") as err:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err)
    assert process.stdin is not None
    process.stdin.write(text[:1000])
    process.stdin.flush()
    wait_until(lambda: catches_usr1(process), process)  # it waits for the rest of the corpus
    process.send_signal(signal.SIGUSR1)
    process.stdin.write(text[1000:])
    process.stdin.close()
    process.stdin = None
    wait_until(lambda: "saved on SIGUSR1" in Path("err").read_text("utf-8"), process)
    wait_until(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size, process)
    before = read_state(run / "state.safetensors")["progress"]["step"]
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: Path("err").read_text("utf-8").count("saved on SIGUSR1") == 2, process)
    state = read_state(run / "state.safetensors")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert state["progress"]["step"] > before
    saved = [record for line in out.splitlines() if (record := json.loads(line))["event"] == "saved"]
    assert [record["requested"] for record in saved] == [True, True]
    assert saved[1]["step"] == state["progress"]["step"]
    for name in ("best", "last"):
        ours, theirs = (Path(folder) / f"{name}.safetensors" for folder in ("run", "undisturbed"))
        assert ours.read_bytes() == theirs.read_bytes()


def assert_same_files(ours: Path, theirs: Path) -> None:
    for name in ("last", "best", "state"):
        found, expected = (read_tensors(folder / f"{name}.safetensors")[0] for folder in (ours, theirs))
        for tensor, value in expected.items():
            np.testing.assert_array_equal(found[tensor], value, err_msg=f"{name} {tensor}")


@pytest.mark.parametrize("every", [1, 7])
def test_saving_between_steps_changes_nothing_and_resumes_exactly(tmp_path: Path, every: int) -> None:
    calls = 0

    def save() -> bool:
        nonlocal calls
        calls += 1
        return calls % every == 0

    list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "whole")))
    events = list(run_training(CORPUS, make_config(), RunFolder(tmp_path / "saved"), save=save))
    assert sum(isinstance(event, Saved) for event in events) > 3
    assert_same_files(tmp_path / "saved", tmp_path / "whole")

    folder, calls = RunFolder(tmp_path / "killed"), 0
    training = run_training(CORPUS, make_config(), folder, save=save)
    step = 0
    while not (isinstance(event := next(training), Saved) and event.step > 11):
        step = event.step if isinstance(event, Stepped) else step
    assert folder.load_state()["progress"]["step"] == event.step == step
    training.close()
    list(run_training(CORPUS, make_config(), folder, resume=True))
    assert_same_files(folder.path, tmp_path / "whole")


def test_a_python_program_can_save_a_run_while_it_trains(corpus: Path, tmp_path: Path) -> None:
    events = library.train(corpus, make_config(), tmp_path / "run", save=lambda: True)
    *_, finished = (event for event in events if isinstance(event, (Saved, Finished)))
    assert isinstance(finished, Finished)


@pytest.mark.slow
def test_sigusr1_during_a_search_reports_what_is_saved_and_the_search_continues(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, real = 0, Trainer.step

    def step(self: Trainer, rate: float) -> float:
        nonlocal steps
        steps += 1
        if steps == 5:
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(self, rate)

    monkeypatch.setattr(Trainer, "step", step)
    result = charlstm("tune", corpus, *SMALL, "--cell", "lstm", "--trials", 1, "--time", "0.3s")
    assert result.code == 0, result.err
    assert result.err.count("every finished trial is saved") == 1


def test_a_system_without_sigusr1_trains_without_it(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGUSR1")
    with SaveSignal() as asked:
        assert not asked()
    assert charlstm("train", corpus, *SMALL, "--epochs", 1, "-q").code == 0
