"""Files of earlier versions stay readable.

`fixtures/version-1` is a run of the first version: an LSTM with 5 units, 234 steps on 700 characters from a pipe. Its
model file has format 1 (metrics under `figures`), its state format 2 (moments under `optimiser`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from charlstm.errors import ModelFileError
from charlstm.storage.model import MODEL_FORMAT, READABLE_MODEL_FORMATS, ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.state import STATE_FORMAT, name_in_file
from charlstm.storage.tensors import read_tensors, write_tensors
from tests.support.command_line import assert_fails, charlstm

FIRST = Path(__file__).parent / "fixtures" / "version-1"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run, which a test may change."""
    shutil.copytree(FIRST, tmp_path / "run")
    return tmp_path / "run"


def test_a_model_of_the_first_version_samples_the_same_text(run: Path) -> None:
    """In float32, as it sampled then."""
    sampled = charlstm("sample", "-m", run, "-l", 60, "--seed", 1, "-t", 0.5, "-n", 2, "--weights", "fp32")
    assert sampled.text.splitlines() == [
        "te he dad os hre we ahe ce a inlon hoa aht ohe hee he can ni",
        "lnd oma nh ait wooohd aat obod wte asin ond pca aan caue it ",
    ]
    assert charlstm("sample", "-m", run, "-l", 11, "-t", 0).text == "at at at at\n"


def test_a_model_of_the_first_version_has_the_same_loss(run: Path) -> None:
    metrics = json.loads(charlstm("eval", "-m", run, "--part", "train", "--json").out)
    assert metrics["characters"] == 630
    assert metrics["loss_nats"] == pytest.approx(2.608191, abs=1e-5)


def test_a_run_of_the_first_version_is_resumed(run: Path) -> None:
    before = RunFolder(run).read_metrics()
    resumed = charlstm("train", "--resume", "-o", run, "--epochs", 7, "--no-samples")
    assert resumed.code == 0, resumed.err
    assert "resumed at step 234" in resumed.err
    lines = RunFolder(run).read_metrics()
    assert lines[: len(before)] == before
    assert [line["step"] for line in lines[len(before) :]] == [240, 250, 273, 273]
    assert lines[-1]["best_step"] == 273
    assert ModelFile.load(run / "best.safetensors").metrics["step"] == 273
    assert read_tensors(run / "best.safetensors")[1]["format"] == MODEL_FORMAT


def test_the_metrics_of_a_model_file_of_format_1_are_read() -> None:
    document = read_tensors(FIRST / "best.safetensors")[1]
    assert document["format"] == 1
    assert ModelFile.load(FIRST / "best.safetensors").metrics == document["figures"]


def test_the_moments_of_a_state_of_format_2_are_read_by_the_names_of_the_weights() -> None:
    tensors, document = read_tensors(FIRST / "state.safetensors")
    assert document["format"] == 2
    state = RunFolder(FIRST).load_state()
    assert state["optimizer"].keys() == state["model"].keys()
    np.testing.assert_array_equal(
        state["optimizer"]["layers.0.weight_hh"]["exp_avg"],
        tensors["optimiser/stack.layers.0.core.weight_hh_l0/exp_avg"],
    )


@pytest.mark.parametrize(
    ("torch_name", "name"),
    [
        ("embedding.weight", "embedding.weight"),
        ("stack.layers.1.core.bias_ih", "layers.1.bias_ih"),
        ("stack.highways.1.weight", "highways.1.weight"),
        ("head.projection.weight", "projection.weight"),
        ("forwards.stack.layers.0.core.weight_hh_l0", "layers.0.weight_hh"),
        ("backwards.head.projection.weight", "backward.projection.weight"),
        ("joint.projection.weight", "joint.projection.weight"),
    ],
)
def test_a_torch_parameter_of_a_state_of_format_2_is_found_by_its_old_path(torch_name: str, name: str) -> None:
    assert name_in_file(torch_name) == name


def test_a_file_of_a_newer_format_is_rejected_by_an_error_that_says_so(run: Path) -> None:
    for name, newer in (("best", READABLE_MODEL_FORMATS[-1] + 1), ("state", STATE_FORMAT + 1)):
        tensors, document = read_tensors(run / f"{name}.safetensors")
        write_tensors(run / f"{name}.safetensors", tensors, document | {"format": newer})
    sampled = charlstm("sample", "-m", run)
    assert_fails(sampled, 1, "best.safetensors has format 4", "reads formats up to 3", "a newer charlstm may read it")
    resumed = charlstm("train", "--resume", "-o", run)
    assert_fails(resumed, 1, "state.safetensors has format 4", "reads formats up to 3", "a newer charlstm may read it")
    with pytest.raises(ModelFileError):
        RunFolder(run).load_state()
