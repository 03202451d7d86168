"""Training with each recurrent cell through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from charlstm.config import CELL_NAMES
from charlstm.model import device
from charlstm.storage.model import ModelFile
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import SMALL

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_cell_trains_resumes_samples_and_evaluates(cell: str, corpus: Path) -> None:
    first = charlstm("train", corpus, "-o", "run", "--cell", cell, "--activation", "softsign", *SMALL, "--epochs", 2)
    assert first.code == 0, first.err
    assert charlstm("train", "-o", "run", "--resume", "--epochs", 4).code == 0
    written = charlstm("sample", "-m", "run", "-l", 20, "--seed", 1)
    assert (written.code, len(written.text)) == (0, 21)
    metrics = json.loads(charlstm("eval", "-m", "run", "--json").out)
    recorded = ModelFile.load(Path("run/best.safetensors")).metrics["validation"]["loss_nats"]
    assert metrics["loss_nats"] == pytest.approx(recorded, abs=1e-5)
    assert metrics["loss_nats"] < 4.1, "a guess is ln 62"


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_both_engines_train_to_the_same_loss(cell: str, corpus: Path) -> None:
    losses = []
    for engine in ("kernel", "torch"):
        options = ("--engine", engine, "--cell", cell, "--precision", "fp32", "--epochs", 3)
        trained = charlstm("train", corpus, "-o", engine, *SMALL, *options)
        assert trained.code == 0, trained.err
        losses.append(ModelFile.load(Path(engine) / "best.safetensors").metrics["validation"]["loss_nats"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


@pytest.mark.parametrize(("flag", "value"), [("--cell", "mlstm"), ("--activation", "softsign")])
def test_the_torch_engine_rejects_a_cell_that_torch_does_not_have(flag: str, value: str, corpus: Path) -> None:
    assert_fails(charlstm("train", corpus, flag, value, "--engine", "torch"), 2, value, "--engine kernel")


def test_the_torch_engine_rejects_bfloat16_that_onednn_does_not_support(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cpu_has", lambda *_: False)
    result = charlstm("train", corpus, "--engine", "torch", "--precision", "bf16", "--device", "cpu")
    assert_fails(result, 2, "oneDNN", "--precision fp32")
    trained = charlstm("train", corpus, "--precision", "bf16", *SMALL, "--epochs", 1)
    assert trained.code == 0, trained.err
