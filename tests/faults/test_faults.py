"""The short campaign. `make faults` runs the long one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import charlstm
from charlstm.storage.model import ModelFile
from tests.faults import faults, kills
from tests.faults.hostile import Strangers
from tests.faults.scene import Scene


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to the ordinary user of one of the tests
        yield Scene(Path(folder))


def test_a_run_killed_at_random_moments_ends_as_if_it_had_never_been(scene: Scene) -> None:
    done = kills.campaign(scene, 6)
    assert done.kills >= 6
    assert done.runs >= 1


def test_a_disk_that_fails_costs_nothing_that_was_saved(scene: Scene) -> None:
    assert faults.failing_disk(scene, (2, 23, 44, 61)) >= 3


def test_a_limit_on_the_size_of_files_is_a_sentence(scene: Scene) -> None:
    assert faults.files_too_large(scene, (300, 9000)) == 2


def test_a_signal_during_validation_is_as_good_as_any_other_time(scene: Scene) -> None:
    faults.signal_in_validation(scene)


def test_a_folder_made_read_only_is_a_sentence(scene: Scene) -> None:
    faults.read_only_folder(scene)


def test_a_clock_set_back_changes_nothing(scene: Scene) -> None:
    faults.clock_set_back(scene)


def test_whoever_reads_while_a_run_is_saved_sees_a_whole_model(scene: Scene) -> None:
    process, read = scene.train("watched"), 0
    while not process.ended(within=0):
        if (scene.run("watched") / "last.safetensors").exists():
            model = charlstm.load(scene.run("watched"))
            assert model.score("the").shape == (3,)
            assert ModelFile.load(scene.run("watched") / "last.safetensors").metrics["step"] >= 0
            read += 1
    assert process.result().code == 0
    assert read >= 1
    scene.check_same("watched")


def test_files_from_strangers_are_refused_in_a_sentence_or_harmless(tmp_path: Path) -> None:
    tally = Strangers(tmp_path).campaign(90, seed=2)
    assert tally.files == 90
    assert all(tally.refused[name] > 10 for name in ("sample", "eval", "--init-from", "--resume"))
