"""Training on a text that is smaller than the default batches: down to a few characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import charlstm as package
from charlstm.storage.model import ModelFile
from tests.support.command_line import assert_fails, charlstm
from tests.support.models import make_chain_model
from tests.support.texts import ENGLISH

pytestmark = pytest.mark.slow

LITTLE = ("--hidden", 8, "--epochs", 2, "--no-samples")


@pytest.mark.parametrize("size", [3, 4, 5, 8, 20, 100, 1000, 1138])
@pytest.mark.parametrize("options", [(), ("--level", "byte"), ("--max-time", "0.1s"), ("--preset", "gru")])
def test_a_small_text_trains_with_smaller_batches_and_a_note(size: int, options: tuple[str, ...]) -> None:
    Path("x.txt").write_text(ENGLISH[:size], "utf-8")
    trained = charlstm("train", "x.txt", *LITTLE, *options, "-o", "run")
    assert trained.code == 0, trained.err
    if "--max-time" not in options:  # it reports the batches that it chose
        assert trained.err.count("the text is small, so it is read with training.batch_size 1") == 1
    assert charlstm("eval", "-m", "run").code == 0
    resumed = charlstm("train", "--resume", "-o", "run", "--epochs", 3)
    assert resumed.code == 0, resumed.err


def test_a_text_of_the_default_batches_keeps_them() -> None:
    Path("x.txt").write_text(ENGLISH[:1139], "utf-8")
    shown = charlstm("train", "x.txt", "--dry-run")
    assert "seq_len = 64\nbatch_size = 16\n" in shown.text
    assert "small" not in shown.err


@pytest.mark.parametrize("size", [4, 5, 20, 60, 300])
def test_a_small_text_trains_a_bidirectional_model(size: int) -> None:
    Path("x.txt").write_text(ENGLISH[:size], "utf-8")
    trained = charlstm("train", "x.txt", *LITTLE, "--bidirectional", "-o", "run")
    assert trained.code == 0, trained.err
    assert charlstm("eval", "-m", "run").code == 0
    ahead = charlstm("train", "x.txt", *LITTLE, "--bidirectional", "--set", "training.look_ahead=1", "--dry-run")
    assert "look_ahead = 1\n" in ahead.text, ahead.err


def test_small_documents_train() -> None:
    Path("x.txt").write_text("a\nb\n")
    trained = charlstm("train", "x.txt", *LITTLE, "--document", "line", "-o", "run")
    assert trained.code == 0, trained.err
    assert charlstm("sample", "-m", "run", "-n", 3).code == 0
    whole = charlstm("train", "-", *LITTLE, "--document", "line", "--split", "1,0", "-o", "one", stdin=b"a")
    assert whole.code == 0, whole.err


def test_two_characters_train_without_a_validation_part_and_one_does_not() -> None:
    two = charlstm("train", "-", *LITTLE, "--split", "1,0", "-o", "run", stdin=b"ab")
    assert two.code == 0, two.err
    assert_fails(charlstm("train", "-", *LITTLE, "--split", "1,0", stdin=b"a"), 1, "1 character", "at least 2")
    assert_fails(charlstm("train", "-", *LITTLE, stdin=b"ab"), 1, "2 characters", "at least 3", "--split 1,0")
    without_hint = charlstm("train", "-", *LITTLE, stdin=b"a")
    assert_fails(without_hint, 1, "1 character", "at least 3; add more text")


def test_batches_that_the_user_set_are_kept() -> None:
    Path("x.txt").write_text(ENGLISH[:100], "utf-8")
    four = charlstm("train", "x.txt", *LITTLE, "--batch-size", 4, "--dry-run")
    assert "seq_len = 5\nbatch_size = 4\n" in four.text
    long = charlstm("train", "x.txt", *LITTLE, "--seq-len", 80, "--dry-run")
    assert "seq_len = 80\nbatch_size = 1\n" in long.text
    assert_fails(charlstm("train", "x.txt", *LITTLE, "--seq-len", 90), 1, "90 characters", "--seq-len")
    again = charlstm("train", "x.txt", "--config", "-", "--dry-run", stdin=four.out)
    assert again.out == four.out
    assert "small" not in again.err


def test_a_search_on_a_small_text_keeps_the_batches_that_fit_it() -> None:
    Path("x.txt").write_text(ENGLISH[:50], "utf-8")
    tuned = charlstm("tune", "x.txt", "--trials", 1, "--time", "0.2s", "--hidden", 8, "--layers", 1, "-o", "search")
    assert tuned.code == 0, tuned.err
    assert "batch-size" not in tuned.err
    assert "seq_len = 11" in Path("search/best.toml").read_text()


def test_a_small_text_trains_from_python() -> None:
    Path("x.txt").write_text("abcdef")
    training = package.train("x.txt", folder="run")
    next(training)
    training.close()
    assert ModelFile.load(Path("run/last.safetensors")).config.training.seq_len == 1


def test_a_score_that_rounds_to_zero_has_no_sign() -> None:
    make_chain_model(5).save(Path("sure.safetensors"))
    text = "".join(map(chr, range(0x4E00, 0x4E05))).encode()
    for options in ((), ("--json",), ("--by", "line"), ("--by", "line", "--json")):
        scored = charlstm("score", "-m", "sure.safetensors", *options, stdin=text)
        assert scored.code == 0, scored.err
        assert "-0.0" not in scored.text
    sampled = charlstm("sample", "-m", "sure.safetensors", "--json", "--seed", 1).text
    assert str(json.loads(sampled)["mean_log_probability_nats"]) == "0.0"
