"""The fault tests in short. `python -m tests.faults` runs them in full."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import charlstm
from charlstm.storage.model import ModelFile
from tests.faults import damaged_archives, kills, system_faults
from tests.faults.forged_files import ForgedFiles
from tests.faults.reference import Reference

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    with tempfile.TemporaryDirectory() as folder:  # one that an ordinary user can reach, unlike pytest's
        yield Reference(Path(folder))


def test_a_run_killed_at_random_moments_ends_like_one_that_was_never_killed(reference: Reference) -> None:
    done = kills.campaign(reference, 6)
    assert done.kills >= 6
    assert done.runs >= 1


def test_a_failing_disk_ends_training_with_an_error_and_loses_nothing_that_was_saved(reference: Reference) -> None:
    assert system_faults.fail_disk(reference, (2, 23, 44, 61)) >= 3


def test_a_limit_on_file_sizes_ends_training_with_an_error(reference: Reference) -> None:
    assert system_faults.limit_file_size(reference, (300, 9000)) == 2


def test_a_signal_during_validation_saves_the_run(reference: Reference) -> None:
    system_faults.signal_during_validation(reference)


def test_a_folder_that_becomes_read_only_ends_training_with_an_error(reference: Reference) -> None:
    system_faults.make_folder_read_only(reference)


def test_a_clock_that_goes_back_changes_nothing(reference: Reference) -> None:
    system_faults.set_clock_back(reference)


def test_a_model_read_while_its_run_is_saved_is_whole(reference: Reference) -> None:
    process, read = reference.train("watched"), 0
    while not process.has_ended(within=0):
        if (reference.run("watched") / "last.safetensors").exists():
            model = charlstm.load(reference.run("watched"))
            assert model.score("the").shape == (3,)
            assert ModelFile.load(reference.run("watched") / "last.safetensors").metrics["step"] >= 0
            read += 1
    assert process.result().code == 0
    assert read >= 1
    reference.check_same("watched")


def test_corrupted_and_forged_files_are_rejected_by_an_error_or_harmless(tmp_path: Path) -> None:
    counts = ForgedFiles(tmp_path).campaign(90, seed=2)
    assert counts.files == 90
    assert all(counts.rejected[name] > 10 for name in ("sample", "eval", "--init-from", "--resume"))


def test_the_text_of_a_damaged_archive_is_read_in_full_or_not_at_all() -> None:
    counts = damaged_archives.compare_with_texts(400, seed=1, largest=100_000)
    assert counts.archives == 400
    assert counts.recognizable > 133
    assert counts.accepted == counts.equal > 50
    assert counts.rejected > 200
