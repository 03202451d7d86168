"""`charlstm eval`: output, exit status and messages."""

from __future__ import annotations

import json
from math import log
from pathlib import Path

import pytest

from charlstm.storage.model import ModelFile
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ENGLISH, SMALL


def test_eval_reproduces_the_validation_loss_of_training(run: Path) -> None:
    metrics = json.loads(charlstm("eval", "-m", run, "--json").out)
    trained = ModelFile.load(run / "best.safetensors").metrics["validation"]
    assert metrics["loss_nats"] == pytest.approx(trained["loss_nats"], abs=1e-6)
    assert metrics["bpc"] == pytest.approx(metrics["loss_nats"] / log(2))
    assert metrics["characters"] == 4000


def test_a_part_and_the_same_text_as_a_file_have_the_same_loss(run: Path) -> None:
    Path("val.txt").write_text(ENGLISH[36_000:40_000], "utf-8")
    part, file, piped = (
        json.loads(result.out)["loss_nats"]
        for result in (
            charlstm("eval", "-m", run, "--json", "--part", "val"),
            charlstm("eval", "-m", run, "--json", "val.txt"),
            charlstm("eval", "-m", run, "--json", "-", stdin=ENGLISH[36_000:40_000].encode()),
        )
    )
    assert part == file == piped


def test_eval_without_json_prints_a_table(run: Path) -> None:
    out = charlstm("eval", "-m", run).text
    assert "loss nats" in out
    assert "bits per byte" in out
    assert "perplexity" in out


def test_a_text_without_a_known_character_is_not_called_empty(run: Path, bidirectional_run: Path) -> None:
    Path("x.txt").write_text("漢字\n".replace("\n", "，"), "utf-8")
    message = "x.txt has 3 characters, and the model knows none"
    assert_fails(charlstm("eval", "-m", run, "x.txt", "--unknown", "skip"), 1, message, "--encoding")
    assert_fails(charlstm("score", "-m", run, "x.txt", "--unknown", "skip"), 1, message)
    assert_fails(charlstm("sample", "-m", run, "--adapt", "x.txt", "--unknown", "skip"), 1, message)
    lines = charlstm("train", bidirectional_run.parent.parent / "line.txt", "-o", "lines", *SMALL, "--document", "line")
    assert lines.code == 0, lines.err
    assert_fails(charlstm("eval", "-m", "lines", "x.txt", "--unknown", "skip"), 1, message)


def test_unknown_characters_are_named_or_skipped(run: Path) -> None:
    Path("x.txt").write_text("Maud 漢", "utf-8")
    assert_fails(charlstm("eval", "-m", run, "x.txt"), 2, "U+6F22", "--unknown skip")
    metrics = json.loads(charlstm("eval", "-m", run, "x.txt", "--json", "--unknown", "skip").out)
    assert (metrics["characters"], metrics["characters_left_out"], metrics["bytes"]) == (5, 1, 5)


def test_bad_input_gets_one_sentence(run: Path) -> None:
    assert_fails(charlstm("eval", "-m", run, "missing.txt"), 2, "missing.txt")
    assert_fails(charlstm("eval", "-m", run, "--part", "test"), 2, "no such part")
    assert_fails(charlstm("eval", "-m", run, "--part", "tset"), 2, "tset")
    assert_fails(charlstm("eval", "-m", run, "--part", "val", "x.txt"), 2, "not both")
    assert_fails(charlstm("eval", "-m", run, "-"), 2, "nothing was piped in")
    for option, value in (("--unknown", "skip"), ("--encoding", "latin-1"), ("--errors", "replace")):
        assert_fails(charlstm("eval", "-m", run, option, value), 2, f"{option} has no effect without a FILE")
    Path("empty.txt").touch()
    assert_fails(charlstm("eval", "-m", run, "empty.txt"), 1, "empty")


def test_eval_rejects_a_corpus_that_has_changed_since_training(run: Path, tmp_path: Path) -> None:
    text = ENGLISH[:4000]
    Path("x.txt").write_text(text, "utf-8")
    quick = ("--hidden", 8, "--batch-size", 4, "--seq-len", 16, "--epochs", 1, "-q")
    assert charlstm("train", "x.txt", *quick).code == 0
    Path("x.txt").write_text(text[:-1], "utf-8")
    assert_fails(charlstm("eval", "-m", "runs/x"), 1, "x.txt has changed", "charlstm eval FILE")
    Path("x.txt").unlink()
    assert_fails(charlstm("eval", "-m", "runs/x"), 1, "not available", "charlstm eval FILE")


def test_a_file_can_have_another_encoding_than_the_corpus(run: Path) -> None:
    Path("utf8.txt").write_text("Maud said\n", "utf-8")
    Path("utf16.txt").write_text("Maud said\n", "utf-16-le")
    assert_fails(charlstm("eval", "-m", run, "utf16.txt"), 1, "utf16.txt", "--encoding")
    metrics = [
        json.loads(charlstm("eval", "-m", run, name, "--encoding", encoding, "--json").out)["loss_nats"]
        for name, encoding in (("utf8.txt", "utf-8"), ("utf16.txt", "utf-16-le"))
    ]
    assert metrics[0] == metrics[1]


def test_dynamic_adds_the_metrics_of_a_model_that_learns_as_it_reads(run: Path) -> None:
    Path("zog.txt").write_text("zog mab quiv lux " * 60)
    before = (run / "best.safetensors").read_bytes()
    static = json.loads(charlstm("eval", "-m", run, "zog.txt", "--json").out)
    both = json.loads(charlstm("eval", "-m", run, "zog.txt", "--json", "--dynamic").out)
    assert {name: both[name] for name in static} == static
    names = ("loss_nats", "bpc", "bits_per_byte", "perplexity")
    assert set(both) - set(static) == {f"dynamic_{name}" for name in names}
    assert both["dynamic_loss_nats"] < both["loss_nats"] - 0.2
    assert both["dynamic_bpc"] == pytest.approx(both["dynamic_loss_nats"] / log(2))
    assert (run / "best.safetensors").read_bytes() == before
    assert "dynamic bpc" in charlstm("eval", "-m", run, "zog.txt", "--dynamic").text


def test_dynamic_evaluation_lowers_the_loss_on_the_validation_part(run: Path) -> None:
    metrics = json.loads(charlstm("eval", "-m", run, "--json", "--dynamic").out)
    assert metrics["dynamic_loss_nats"] < metrics["loss_nats"]


def test_adapt_rate_sets_how_fast_the_model_adapts(run: Path) -> None:
    Path("x.txt").write_text(ENGLISH[20_000:20_500], "utf-8")
    still, slow, named = (
        json.loads(charlstm("eval", "-m", run, "x.txt", "--json", "--dynamic", *rate, environ=environ).out)
        for rate, environ in (
            (("--adapt-rate", 0), {}),
            (("--adapt-rate", 1e-5), {}),
            ((), {"CHARLSTM_ADAPT_RATE": "1e-5"}),
        )
    )
    assert still["dynamic_loss_nats"] == pytest.approx(still["loss_nats"], abs=1e-5)
    assert slow["dynamic_loss_nats"] < still["dynamic_loss_nats"]
    assert slow == named


def test_wrong_use_of_dynamic_gets_one_sentence(run: Path) -> None:
    Path("empty.txt").touch()
    assert_fails(charlstm("eval", "-m", run, "--adapt-rate", 0.1), 2, "--adapt-rate", "without --dynamic")
    assert_fails(charlstm("eval", "-m", run, "--dynamic", "--adapt-rate", 7), 2, "--adapt-rate", "'7'", "from 0 to 1")
    assert_fails(charlstm("eval", "-m", run, "--dynamic", "missing.txt"), 2, "missing.txt")
    assert_fails(charlstm("eval", "-m", run, "--dynamic", "empty.txt"), 1, "empty")


def test_gaps_and_dynamic_add_their_metrics_to_one_object(run: Path) -> None:
    plain = json.loads(charlstm("eval", "-m", run, "--json").out)
    options = ("--gaps", 0.02, "--gap-length", 2, "--dynamic")
    combined = json.loads(charlstm("eval", "-m", run, "--json", *options).out)
    assert {key: combined[key] for key in plain} == plain
    assert {"dynamic_bpc", "gaps", "gap_characters", "gap_length", "gap_seed"} < set(combined)
    assert {"gap_exact_match_forward", "gap_character_accuracy_candidates"} < set(combined)
    assert (combined["gap_length"], combined["gap_seed"]) == ("2..2", 1)
