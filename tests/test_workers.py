"""Training and evaluation on several processor cores, and the processes that share the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charlstm.config import RegularizationConfig
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError
from charlstm.evaluation import evaluate as evaluation
from charlstm.evaluation.evaluate import evaluate, score_characters
from charlstm.model.bidirectional import build_model
from charlstm.runtime import count_cores, list_cores
from charlstm.storage.run import RunFolder
from charlstm.storage.tensors import read_tensors
from charlstm.training.events import Finished
from charlstm.training.run import run_training
from charlstm.training.trainer import Trainer
from charlstm.workers import CoreLoans, Workers, compute_in_parallel, divide
from tests.support.command_line import assert_fails, charlstm, run_process
from tests.support.texts import ENGLISH, SMALL
from tests.support.training import CORPUS, MODEL, make_config, stop_at

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems train in one process")

DROPOUT = {"embedding_dropout": 0.1, "weight_dropout": 0.1, "activation_penalty": 1.0, "temporal_penalty": 1.0}


def on_cores(cores: int, **settings: Any) -> Any:
    """Return the settings of a run on this many cores, with streams for two processes."""
    return make_config(threads=cores, batch_size=9, **settings)


def gradients(cores: int, **settings: Any) -> list[torch.Tensor]:
    """Return the gradients of the second step: its states are not the initial ones."""
    trainer = Trainer(CORPUS, on_cores(cores, **settings))
    for _ in range(2):
        trainer.step(1e-3)
    found = [parameter.grad.clone() for parameter in trainer.model.parameters() if parameter.grad is not None]
    assert trainer.gradient.processes == cores
    trainer.close()
    return found


EXACT = {"dropout": 0.0, "clip": 0.0, "activation_penalty": 1.0, "temporal_penalty": 1.0}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"engine": "torch"},
        {"cell": "gru"},
        {"bidirectional": True, "dropout": 0.3},
        {"head": "tied", "embedding": 12},
        {"l1": 1e-3},
        {"dropout": 0.3, "layers": 2, "embedding_dropout": 0.2, "weight_dropout": 0.2},
        {"dropout": 0.3, "dropout_mask": "window"},
        {"zoneout": 0.2, "cell": "gru"},
    ],
    ids=str,
)
def test_a_batch_that_is_divided_has_the_gradient_of_a_whole_one(settings: dict[str, Any]) -> None:
    """Among processes, in parts that are read one after the other, and both: also with random masks."""
    settings = EXACT | settings
    whole = gradients(1, **settings)
    for cores, accumulate in ((2, 1), (1, 3), (2, 2), (1, 99)):
        for one, divided in zip(whole, gradients(cores, accumulate=accumulate, **settings), strict=True):
            torch.testing.assert_close(divided, one, atol=1e-5, rtol=1e-4)


def test_two_processes_compute_the_gradient_of_one_for_documents() -> None:
    text = Corpus.from_text(ENGLISH[:2500], replace(make_config().data, document="line"))
    found = []
    for cores in (1, 2):
        trainer = Trainer(text, on_cores(cores, dropout=0.0))
        trainer.step(1e-3)
        found.append([parameter.grad.clone() for parameter in trainer.model.parameters()])  # type: ignore[union-attr]
        trainer.close()
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4)


def read_run(folder: Path) -> dict[str, Any]:
    return read_tensors(folder / "last.safetensors")[0]


@pytest.mark.parametrize("resumed_with", [0, 2])
def test_resuming_is_exact_on_two_cores_wherever_the_run_continues(
    tmp_path: Path, resumed_with: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of cores is stored in the state: a resumed run does not ask how many there are."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    list(run_training(CORPUS, on_cores(0, **DROPOUT), RunFolder(tmp_path / "whole")))
    watch, stop = stop_at(13)
    watch(run_training(CORPUS, on_cores(0, **DROPOUT), RunFolder(tmp_path / "parts"), stop=stop))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    list(run_training(CORPUS, on_cores(resumed_with, **DROPOUT), RunFolder(tmp_path / "parts"), resume=True))
    whole, parts = read_run(tmp_path / "whole"), read_run(tmp_path / "parts")
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)


def test_a_resumed_run_can_use_another_number_of_cores(tmp_path: Path) -> None:
    watch, stop = stop_at(13)
    watch(run_training(CORPUS, on_cores(2), RunFolder(tmp_path / "run"), stop=stop))
    *_, last = run_training(CORPUS, on_cores(1), RunFolder(tmp_path / "run"), resume=True)
    assert isinstance(last, Finished)
    assert last.reason == "done"


def test_a_run_that_diverges_rolls_back_in_all_processes(tmp_path: Path) -> None:
    """The states and random generators of every process go back, so that the run is that of a second attempt."""
    trainer = Trainer(CORPUS, on_cores(2, **DROPOUT))
    trainer.step(1e-3)
    saved = trainer.state_dict()
    again = []
    for _ in range(2):
        again.append([trainer.step(1e-3) for _ in range(3)])
        trainer.load_state_dict(saved)
    assert again[0] == again[1]
    trainer.close()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_evaluation_on_two_cores_is_that_on_one(bidirectional: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    model = build_model(replace(MODEL, bidirectional=bidirectional), 30, regularization=RegularizationConfig())
    ids = np.random.default_rng(1).integers(0, 30, 9 * 4096 + 77)
    metrics = [evaluate(model, ids, 0, len(ids), cores=cores) for cores in (1, 2)]
    assert metrics[0] is not None and metrics[1] is not None
    for name, value in metrics[0].to_dict().items():
        assert metrics[1].to_dict()[name] == pytest.approx(value, rel=1e-6)
    one = score_characters(model, ids, 0)
    monkeypatch.setattr(evaluation, "count_cores", lambda: 2)
    two = score_characters(model, ids, 0)
    for mine, theirs in zip(one, two, strict=True):
        if mine is not None and theirs is not None:
            np.testing.assert_allclose(theirs.log_probability, mine.log_probability, atol=1e-4)


def test_stopping_an_evaluation_does_not_wait_for_the_other_processes() -> None:
    model, calls = build_model(MODEL, 30), iter([False, True])
    assert evaluate(model, np.zeros(300_000, np.int64), 0, 300_000, lambda: next(calls), cores=2) is None


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_every_stream_belongs_to_one_process(count: int) -> None:
    for parts in range(1, count + 1):
        sizes = [part.stop - part.start for part in divide(count, parts)]
        assert sum(sizes) == count
        assert max(sizes) - min(sizes) <= 1


def test_the_number_of_cores_is_the_users_or_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert count_cores() == 3
    for ignored in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", ignored)
        assert 1 <= count_cores() <= len(list_cores())


def test_a_limit_on_the_time_of_a_container_limits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("charlstm.runtime.list_cores", lambda: [{k} for k in range(64)])
    for limit, expected in ((None, 64), (1.5, 2), (0.5, 1), (100.0, 64)):
        monkeypatch.setattr("charlstm.runtime.find_time_limit", partial(float, limit) if limit else lambda: None)
        assert count_cores() == expected


def test_results_come_back_in_order_and_errors_are_raised() -> None:
    def fail() -> None:
        raise ValueError("a worker's error")

    assert compute_in_parallel([partial(pow, k, 2) for k in range(4)]) == [0, 1, 4, 9]
    with pytest.raises(ValueError, match="a worker's error"):
        compute_in_parallel([lambda: None, fail])


def test_a_killed_worker_is_an_error_that_says_what_to_do() -> None:
    workers = Workers([lambda _: os.kill(os.getpid(), signal.SIGKILL)])
    workers.send(None)
    with pytest.raises(CharlstmError, match=r"ended by signal 9.*--resume"):
        workers.receive()


def test_the_affinity_and_the_threads_of_the_caller_are_left_alone() -> None:
    before = os.sched_getaffinity(0), torch.get_num_threads()
    trainer = Trainer(CORPUS, on_cores(2))
    trainer.step(1e-3)
    trainer.close()
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before


def test_a_process_that_waits_lends_its_core_to_one_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[tuple[int, set[int]]] = []
    monkeypatch.setattr("charlstm.workers.list_cores", lambda: [{4}, {5}, {6}])
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cores: moves.append((thread, cores)))
    loans, me, before = CoreLoans(3), threading.get_native_id(), os.sched_getaffinity(0)
    loans.lend_core(2)  # nobody computes
    with loans.use_core(0):
        loans.lend_core(0)  # not to itself
        loans.lend_core(2)
        loans.lend_core(1)  # one core is enough
    loans.lend_core(2)
    with loans.use_core(0):
        loans.lend_core(1)
    assert moves == [(0, {4}), (me, {6}), (0, before), (0, {4}), (me, {5}), (0, before)]


def test_a_core_that_is_lent_too_late_binds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[set[int]] = []
    loans = CoreLoans(2)

    def move(_thread: int, cores: set[int]) -> None:
        moves.append(cores)
        loans.threads[0] = 0  # it is done at this moment

    monkeypatch.setattr("charlstm.workers.list_cores", lambda: [{4}, {5}])
    monkeypatch.setattr(os, "sched_setaffinity", move)
    loans.is_active, loans.threads[0] = True, 99
    loans.lend_core(1)
    assert moves == [{5}, {4, 5}]


def test_no_core_is_lent_without_one_process_per_core() -> None:
    loans = CoreLoans(len(list_cores()) + 1)
    before = os.sched_getaffinity(0)
    with loans.use_core(0):
        assert os.sched_getaffinity(0) == before
        loans.lend_core(1)
        assert os.sched_getaffinity(0) == before


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(condition: Callable[[], object]) -> None:
    """Wait up to a minute: a machine may be busy."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


@pytest.fixture
def training(corpus: Path) -> Any:
    """A training process on two cores, once its worker runs."""
    command = [sys.executable, "-m", "charlstm", "train", corpus, *SMALL, "--epochs", "10000", "--batch-size", "8"]
    process = subprocess.Popen(
        [*map(str, command), "--threads", "2", "-q"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_until(lambda: children(process.pid))
    yield process
    process.kill()
    process.wait()
    process.stderr.close()  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_workers_end_with_a_killed_run_which_can_be_resumed_at_once(training: Any) -> None:
    (worker,) = children(training.pid)
    training.kill()
    training.wait()
    resumed = charlstm("train", "--resume", "--epochs", 1, "-q")
    assert resumed.code == 0, resumed.err
    wait_until(lambda: not Path(f"/proc/{worker}").exists())


@pytest.mark.slow
def test_ctrl_c_saves_a_run_on_two_cores(training: Any) -> None:
    """A terminal sends the signal to all processes of the command."""
    os.killpg(training.pid, signal.SIGINT)
    assert training.wait(timeout=60) == 130
    assert "Traceback" not in training.stderr.read()


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_one_sentence(training: Any) -> None:
    os.kill(children(training.pid)[0], signal.SIGKILL)
    assert training.wait(timeout=60) == 1
    errors = training.stderr.read()
    assert "ended by signal 9" in errors
    assert "Traceback" not in errors


def test_threads_is_a_setting_that_a_resumed_run_may_change(corpus: Path) -> None:
    trained = charlstm("train", corpus, *SMALL, "--epochs", 1, "--threads", 2, "--batch-size", 8, "--json")
    assert trained.code == 0, trained.err
    assert "2 processes" in json.loads(trained.text.splitlines()[0])["device"]
    resumed = charlstm("train", "--resume", "--epochs", 2, "--threads", 1)
    assert resumed.code == 0, resumed.err
    assert_fails(charlstm("train", corpus, "--threads", "-1", "-o", "other"), 2, "--threads")


@pytest.mark.slow
def test_the_default_uses_the_cores_of_the_machine(corpus: Path) -> None:
    done = run_process(
        "train", corpus, *SMALL, "--epochs", 1, "--batch-size", 8, "--json", environ={"OMP_NUM_THREADS": "2"}
    )
    assert "2 processes" in done.text
