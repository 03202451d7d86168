"""Event files: TensorBoard's own reader gives back what metrics.jsonl has, also after a resumption."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from charlstm.training import trainer
from tests.support.command_line import charlstm
from tests.support.texts import SMALL

pytestmark = pytest.mark.slow

TRAIN = (*SMALL, "--hidden", 8, "--set", "training.validate_every=20")
RENAMED = {
    "loss/train": "loss_nats",
    "loss/validation": "validation_loss_nats",
    "loss/validation_bpc": "validation_bpc",
}


def read_events(folder: Path) -> Any:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def read_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_has_every_scalar(folder: Path, run: Path) -> None:
    """Assert that a folder has every number of the metrics of a run, once, and no other."""
    events, lines = read_events(folder), read_lines(run)
    found = {
        (RENAMED.get(tag, tag.removeprefix("other/")), scalar.step, scalar.value)
        for tag in events.Tags()["scalars"]
        for scalar in events.Scalars(tag)
    }
    places = ("step", "seconds", "training_seconds", "why")
    expected = {
        (key, line["step"], float(np.float32(value)))
        for line in lines
        for key, value in line.items()
        if key not in places
    }
    assert found == expected
    (file,) = folder.iterdir()
    scalars = [
        (value.tag, event.step)
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tag != "config"
    ]
    assert len(scalars) == sum(len(line.keys() - {*places}) for line in lines) + len(sample_steps(folder))


def sample_steps(folder: Path) -> list[int]:
    events = read_events(folder)
    return [each.step for each in events.Tensors("sample")] if "sample" in events.Tags()["tensors"] else []


def test_a_run_writes_scalars_samples_and_settings_for_tensorboard(corpus: Path) -> None:
    trained = charlstm("train", corpus, "-o", "run", *TRAIN, "--epochs", 2, "--tensorboard")
    assert trained.code == 0, trained.err
    assert_has_every_scalar(Path("run/tensorboard"), Path("run"))
    validated = [line["step"] for line in read_lines(Path("run")) if "validation_loss_nats" in line]
    assert sample_steps(Path("run/tensorboard")) == validated
    events = read_events(Path("run/tensorboard"))
    (settings,) = events.Tensors("config")
    assert "hidden = 8" in settings.tensor_proto.string_val[0].decode()
    (file,) = Path("run/tensorboard").iterdir()
    assert str(corpus.parent).encode() not in file.read_bytes()
    assert socket.gethostname().encode() not in file.read_bytes() + file.name.encode()


def test_a_resumed_run_has_each_step_once(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two saves, it drops what it had logged since the last one."""
    step, original = 0, trainer.Trainer.step

    def fail(self: trainer.Trainer, rate: float) -> float:
        nonlocal step
        step += 1
        if step == 75:
            raise KeyboardInterrupt
        return original(self, rate)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", fail)
        killed = charlstm("train", corpus, "-o", "run", *TRAIN, "--epochs", 3, "--tensorboard")
    assert killed.code == 130
    resumed = charlstm("train", "--resume", "-o", "run", "--tensorboard")
    assert resumed.code == 0, resumed.err
    assert_has_every_scalar(Path("run/tensorboard"), Path("run"))
    validated = [line["step"] for line in read_lines(Path("run")) if "validation_loss_nats" in line]
    assert sample_steps(Path("run/tensorboard")) == validated


def test_a_run_that_began_without_it_has_its_whole_history(corpus: Path) -> None:
    assert charlstm("train", corpus, "-o", "run", *TRAIN, "--epochs", 1).code == 0
    resumed = charlstm("train", "--resume", "-o", "run", "--epochs", 2, "--tensorboard", "--no-samples", "-q")
    assert resumed.code == 0, resumed.err
    assert_has_every_scalar(Path("run/tensorboard"), Path("run"))


def test_runs_in_other_folders_are_converted_inside_the_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("project/runs/a", "other/b"):
        shutil.copytree(run, name)
    monkeypatch.chdir("project")
    assert charlstm("plot", "runs/a", "../other/b", "--tensorboard", "logs").code == 0
    assert sorted(str(path.parent) for path in Path().rglob("events.*")) == ["logs/other/b", "logs/project/runs/a"]


def test_finished_runs_are_converted(run: Path) -> None:
    for _ in range(2):
        converted = charlstm("plot", run, "--tensorboard", "logs")
        assert (converted.code, converted.text) == (0, "logs\n"), converted.err
        assert_has_every_scalar(Path("logs/letters"), run)
