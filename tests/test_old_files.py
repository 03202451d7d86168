"""Files that an older charlstm wrote: read for good. Those in fixtures/version-1 are of the first version, and of a
run whose corpus came through a pipe: an LSTM of 5 units, 234 steps on 700 characters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from charlstm.errors import ModelFileError
from charlstm.storage.model import MODEL_FORMAT, ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.state import STATE_FORMAT
from charlstm.storage.tensors import read_tensors, write_tensors
from tests.conftest import charlstm, one_sentence

FIRST = Path(__file__).parent / "fixtures" / "version-1"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(FIRST, tmp_path / "run")
    return tmp_path / "run"


def test_a_model_of_the_first_version_writes_what_it_wrote(run: Path) -> None:
    drawn = charlstm("sample", "-m", run, "-l", 60, "--seed", 1, "-t", 0.5, "-n", 2)
    assert drawn.text.splitlines() == [
        "te he dad os hre we ahe ce a inlon hoa aht ohe hee he can ni",
        "lnd oma nh ait wooohd aat obod wte asin ond pca aan caue it ",
    ]
    assert charlstm("sample", "-m", run, "-l", 11, "-t", 0).text == "at at at at\n"


def test_it_scores_as_it_scored(run: Path) -> None:
    figures = json.loads(charlstm("eval", "-m", run, "--part", "train", "--json").out)
    assert figures["characters"] == 630
    assert figures["loss_nats"] == pytest.approx(2.608191, abs=1e-5)


def test_its_run_goes_on(run: Path) -> None:
    before = RunFolder(run).read_metrics()
    resumed = charlstm("train", "--resume", "-o", run, "--epochs", 7, "--no-samples")
    assert resumed.code == 0, resumed.err
    assert "resumed at step 234" in resumed.err
    lines = RunFolder(run).read_metrics()
    assert lines[: len(before)] == before
    assert [line["step"] for line in lines[len(before) :]] == [240, 250, 273]
    assert ModelFile.load(run / "best.safetensors").metrics["step"] == 273


def test_what_a_newer_version_wrote_is_refused_in_a_sentence(run: Path) -> None:
    for name, newer in (("best", MODEL_FORMAT + 1), ("state", STATE_FORMAT + 1)):
        tensors, document = read_tensors(run / f"{name}.safetensors")
        write_tensors(run / f"{name}.safetensors", tensors, document | {"format": newer})
    one_sentence(
        charlstm("sample", "-m", run), 1, "has format 3", "reads formats up to 2", "a newer charlstm may read it"
    )
    resumed = charlstm("train", "--resume", "-o", run)
    one_sentence(resumed, 1, "state.safetensors has format 4", "reads formats up to 3", "a newer charlstm may read it")
    with pytest.raises(ModelFileError):
        RunFolder(run).load_state()
