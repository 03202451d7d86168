"""`--split 1,0`: training on the whole corpus, without a validation part."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from charlstm.storage.model import ModelFile
from charlstm.training.trainer import Trainer
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import SMALL

pytestmark = pytest.mark.slow

WHOLE = (*SMALL, "--split", "1,0")


@pytest.fixture
def whole(corpus: Path) -> Path:
    """A run on a whole corpus."""
    trained = charlstm("train", corpus, *WHOLE, "--epochs", 2, "-o", "run", "--json")
    assert trained.code == 0, trained.err
    events = [json.loads(line) for line in trained.text.splitlines()]
    assert [event["event"] for event in events] == ["started", "saved", "finished"]
    assert events[1]["loss_nats"] > 0
    assert events[2]["best_loss_nats"] is None
    assert "4,000 train\n" in trained.err
    assert "validation" not in trained.err
    assert "  saved" in trained.err
    return Path("run")


def test_without_a_validation_part_the_best_model_is_the_last(whole: Path) -> None:
    assert (whole / "best.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()
    assert ModelFile.load(whole / "best.safetensors").metrics["step"] > 100
    assert charlstm("sample", "-m", whole, "-l", 20, "--novelty").code == 0
    assert not any("validation" in line for line in (whole / "metrics.jsonl").read_text().splitlines())
    assert charlstm("train", "--resume", "-o", whole, "--epochs", 3).code == 0
    assert (whole / "best.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()
    assert ModelFile.load(whole / "best.safetensors").metrics["step"] > 150


def test_eval_without_a_validation_part_asks_for_a_file(whole: Path, corpus: Path) -> None:
    for options in ((), ("--gaps", 0.1), ("--dynamic",)):
        assert_fails(charlstm("eval", "-m", whole, *options), 2, "no validation part", "1,0", "FILE", "--part train")
    assert_fails(charlstm("eval", "-m", whole, "--part", "val"), 2, "--part val", "no such part")
    assert charlstm("eval", "-m", whole, "--part", "train").code == 0
    assert charlstm("eval", "-m", whole, corpus).code == 0


@pytest.mark.parametrize(
    "options",
    [("--patience", 2), ("--schedule", "plateau"), ("--optimizer", "nt-asgd")],
    ids=lambda options: options[0],
)
def test_an_option_that_acts_on_the_validation_loss_is_rejected(options: tuple[str, Any], corpus: Path) -> None:
    named = " ".join(map(str, options)) if isinstance(options[1], str) else options[0]
    assert_fails(charlstm("train", corpus, *WHOLE, *options), 2, named, "--split 1,0 leaves no validation part")


def test_tune_and_resume_reject_what_needs_a_validation_part(whole: Path, corpus: Path) -> None:
    assert_fails(charlstm("tune", corpus, "--split", "1,0"), 2, "validation loss", "--split leaves no validation part")
    assert_fails(charlstm("train", "--resume", "-o", whole, "--patience", 1), 2, "--patience", "no validation part")


def test_settings_are_chosen_for_a_time_limit_without_a_validation_part(corpus: Path) -> None:
    trained = charlstm("train", corpus, "--split", "1,0", "--max-time", "1s", "-o", "run")
    assert trained.code == 0, trained.err
    assert "passes over 4,000 characters" in trained.err
    assert Path("run/best.safetensors").read_bytes() == Path("run/last.safetensors").read_bytes()


def test_an_interrupted_run_without_a_validation_part_resumes_exactly(corpus: Path) -> None:
    options = (*WHOLE, "--epochs", 2, "--set", "training.validate_every=30", "--keep", 2)
    assert charlstm("train", corpus, *options, "-o", "whole").code == 0
    real, taken = Trainer.step, 0

    def interrupt(self: Trainer, learning_rate: float) -> float:
        nonlocal taken
        taken += 1
        if taken == 50:
            signal.raise_signal(signal.SIGINT)
        return real(self, learning_rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", interrupt)
        assert charlstm("train", corpus, *options, "-o", "parts").code == 130
    assert ModelFile.load(Path("parts/best.safetensors")).metrics["step"] == 50
    assert charlstm("train", "--resume", "-o", "parts").code == 0
    assert {path.name for path in Path("parts").iterdir()} == {path.name for path in Path("whole").iterdir()}
    assert Path("parts/best.safetensors").read_bytes() == Path("whole/best.safetensors").read_bytes()


def test_a_run_without_a_validation_part_recovers_from_a_divergence(corpus: Path) -> None:
    real, taken = Trainer.step, 0

    def diverge_once(self: Trainer, learning_rate: float) -> float:
        nonlocal taken
        taken += 1
        if taken == 45:
            for parameter in self.model.parameters():
                parameter.data.fill_(float("nan"))
        return real(self, learning_rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", diverge_once)
        options = ("--epochs", 1, "--set", "training.validate_every=20", "-o", "run")
        trained = charlstm("train", corpus, *WHOLE, *options)
    assert trained.code == 0, trained.err
    assert "rolled back to step 40" in trained.err
    assert Path("run/best.safetensors").read_bytes() == Path("run/last.safetensors").read_bytes()


def test_shares_that_make_no_sense_are_rejected(corpus: Path) -> None:
    for split in ("0,1", "1", "0.5,0.6", "1,-0", "1.1,-0.1", "0.9,0.1,0,0"):
        result = charlstm("train", corpus, *SMALL, "--split", split, "--dry-run")
        if split == "1,-0":
            assert result.code == 0, result.err
        else:
            assert_fails(result, 2, "--split must be two or three shares such as 0.9,0.1 or 1,0", split)
