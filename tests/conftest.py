"""Fixtures that the tests share: small trained runs, and an empty working folder for every test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"  # threads slow small models down: they spin while they wait for each other

from tests.support.command_line import charlstm
from tests.support.texts import ENGLISH, SMALL, WORDS

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and child processes inherit that
settings.register_profile("charlstm", deadline=None)  # a busy machine is not a failure
settings.load_profile("charlstm")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on English text, trained for a few seconds. Its model samples letters and spaces."""
    folder = tmp_path_factory.mktemp("session")
    corpus = folder / "letters.txt"
    corpus.write_text(ENGLISH[:40_000], "utf-8")
    target = folder / "runs" / "letters"
    trained = charlstm(
        "train", corpus, "-o", target, *SMALL, "--hidden", 48, "--epochs", 2, "--set", "training.validate_every=250"
    )
    assert trained.code == 0, trained.err
    return target


@pytest.fixture(scope="session")
def bidirectional_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bidirectional run that has memorized one line."""
    folder = tmp_path_factory.mktemp("bidirectional")
    corpus = folder / "line.txt"
    corpus.write_text(WORDS * 120, "utf-8")
    target = folder / "runs" / "line"
    trained = charlstm(
        "train", corpus, "-o", target, *SMALL, "--bidirectional", "--epochs", 8, "--set", "training.look_ahead=8"
    )
    assert trained.code == 0, trained.err
    return target


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a text file of 4,000 characters."""
    path = tmp_path / "little.txt"
    path.write_text(ENGLISH[:4000], "utf-8")
    return path


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: most of the time of the tests would be spent on it."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test in an empty folder of its own, without settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CHARLSTM_")]:
        monkeypatch.delenv(name)
