"""`charlstm sample --novelty`, as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from charlstm.cli.actions import novelty
from tests.support.command_line import assert_fails, charlstm, run_process
from tests.support.texts import ENGLISH

TRAINED = ENGLISH[:36_000]


def test_novelty_prints_the_longest_copied_run_of_each_sample(run: Path) -> None:
    found = charlstm("sample", "-m", run, "-n", 2, "-l", 80, "--seed", 1, "--novelty", "-t", "0.5")
    plain = charlstm("sample", "-m", run, "-n", 2, "-l", 80, "--seed", 1, "-t", "0.5")
    assert found.code == 0, found.err
    assert found.out == plain.out
    lines = [line for line in found.err.splitlines() if line.startswith("sample ")]
    assert [line.partition(":")[0] for line in lines] == ["sample 1", "sample 2"]
    assert all("the longest run copied from the training text has" in line for line in lines)


@pytest.mark.parametrize("at_once", [1, novelty.BATCH_BYTES])
def test_the_json_record_has_the_longest_run_and_the_copied_share(
    run: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(novelty, "BATCH_BYTES", at_once)
    found = charlstm("sample", "-m", run, "-n", 3, "-l", 60, "--seed", 1, "--novelty", "--json", "-p", TRAINED[:50])
    results = [json.loads(line) for line in found.text.splitlines()]
    assert [result["index"] for result in results] == [0, 1, 2]
    for result in results:
        text, length = result["text"], result["longest_run_characters"]
        runs = [text[i : i + length + 1] for i in range(len(text) - length)]
        assert result["longest_run"] in text
        assert result["longest_run"] in TRAINED
        assert len(result["longest_run"]) == length
        assert not any(run in TRAINED for run in runs)
        assert (result["copied_share"] > 0) == (length >= 20)


def test_novelty_rejects_endless_samples_and_a_missing_corpus(run: Path, tmp_path: Path) -> None:
    assert_fails(
        charlstm("sample", "-m", run, "-l", 0, "--novelty"),
        2,
        "-l 0 sets no limit, and --novelty needs a whole sample",
    )
    corpus = tmp_path / "letters.txt"
    corpus.write_text(ENGLISH[:4000])
    trained = charlstm("train", corpus, "-o", tmp_path / "other", "--hidden", 8, "--epochs", 1, "--batch-size", 2)
    assert trained.code == 0, trained.err
    corpus.write_text("Something else.")
    changed = charlstm("sample", "-m", tmp_path / "other", "-l", 5, "--novelty")
    assert_fails(changed, 1, "has changed since the model was trained", "--novelty compares the samples")
    assert changed.out == b""
    corpus.unlink()
    gone = charlstm("sample", "-m", tmp_path / "other", "-l", 5, "--novelty")
    assert_fails(gone, 1, "the model's training corpus is not available")


def test_novelty_does_not_import_torch(run: Path) -> None:
    done = run_process("sample", "-m", run, "-l", 5, "--novelty", environ={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.code == 0
    assert "sampling.novelty" in done.err
    assert " torch" not in done.err
