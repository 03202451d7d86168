"""Model files with float16 weights, and `charlstm export --charlstm`, which writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from charlstm.errors import CharlstmError, ModelFileError
from charlstm.storage.model import HALF_MODEL_FORMAT, MODEL_FORMAT, ModelFile, round_to_half
from charlstm.storage.tensors import check_format, read_tensors, write_tensors
from tests.support.command_line import assert_fails, charlstm


@pytest.fixture
def half(run: Path, tmp_path: Path) -> Path:
    """Return a copy of the run's model with float16 weights."""
    exported = charlstm("export", "-m", run, "--charlstm", "half.safetensors", "--weights", "fp16")
    assert exported.code == 0, exported.err
    assert exported.text == "half.safetensors\nREADME.md\n"
    return tmp_path / "half.safetensors"


def test_the_weights_of_a_half_precision_file_are_those_of_the_model_rounded(run: Path, half: Path) -> None:
    whole, rounded = ModelFile.load(run / "best.safetensors"), ModelFile.load(half)
    assert (rounded.config, rounded.metrics, rounded.corpus) == (whole.config, whole.metrics, whole.corpus)
    for name, weight in whole.weights.items():
        assert rounded.weights[name].dtype == np.float32
        np.testing.assert_array_equal(rounded.weights[name], weight.astype(np.float16))


def test_a_half_precision_file_has_half_the_size_and_any_safetensors_reader_opens_it(run: Path, half: Path) -> None:
    header = int.from_bytes(half.read_bytes()[:8], "little")
    assert half.stat().st_size - header < 0.51 * (run / "best.safetensors").stat().st_size
    with safe_open(half, framework="numpy") as file:
        assert file.get_tensor("layers.0.weight_hh").dtype == np.float16
        assert json.loads(file.metadata()["charlstm"])["format"] == 3


def test_a_model_of_a_half_precision_file_is_saved_without_further_rounding(half: Path, tmp_path: Path) -> None:
    model = ModelFile.load(half)
    model.save(tmp_path / "again.safetensors", "fp16")
    assert (tmp_path / "again.safetensors").read_bytes() == half.read_bytes()
    model.save(tmp_path / "whole.safetensors")
    assert read_tensors(tmp_path / "whole.safetensors")[1]["format"] == MODEL_FORMAT
    again = ModelFile.load(tmp_path / "whole.safetensors")
    for name, weight in model.weights.items():
        np.testing.assert_array_equal(again.weights[name], weight)


@given(st.lists(st.floats(-60000, 60000, width=32), min_size=1))
def test_rounding_to_half_precision_changes_a_weight_by_at_most_one_part_in_2048(values: list[float]) -> None:
    weight = np.array(values, np.float32)
    rounded = round_to_half("weight", weight).astype(np.float32)
    assert (np.abs(rounded - weight) <= np.maximum(np.abs(weight) * 2.0**-11, 2.0**-25)).all()


@pytest.mark.slow
def test_the_loss_of_a_model_hardly_changes_by_half_precision(run: Path, half: Path) -> None:
    text = (run.parent.parent / "letters.txt").read_bytes()[-4000:]
    whole, rounded = (
        json.loads(charlstm("eval", "-m", model, "-", "--json", stdin=text).out)["loss_nats"] for model in (run, half)
    )
    assert rounded == pytest.approx(whole, abs=1e-3)
    assert rounded != whole


def test_a_weight_that_float16_cannot_represent_is_named_and_nothing_is_written(run: Path, tmp_path: Path) -> None:
    tensors, document = read_tensors(run / "best.safetensors")
    tensors["head.bias"][3] = -70000
    write_tensors(tmp_path / "large.safetensors", tensors, document)
    exported = charlstm("export", "-m", "large.safetensors", "--charlstm", "half.safetensors", "--weights", "fp16")
    assert_fails(exported, 1, "head.bias", "70,000", "65,504")
    assert not Path("half.safetensors").exists()
    with pytest.raises(CharlstmError, match=r"head\.bias"):
        ModelFile.load(tmp_path / "large.safetensors").save(tmp_path / "half.safetensors", "fp16")


def test_a_file_whose_weights_do_not_have_the_type_of_its_format_is_rejected(
    run: Path, half: Path, tmp_path: Path
) -> None:
    for source, stated in ((half, MODEL_FORMAT), (run / "best.safetensors", HALF_MODEL_FORMAT)):
        tensors, document = read_tensors(source)
        write_tensors(tmp_path / "odd.safetensors", tensors, {**document, "format": stated})
        with pytest.raises(ModelFileError, match="do not fit"):
            ModelFile.load(tmp_path / "odd.safetensors")


def test_a_charlstm_that_knows_two_formats_names_the_third(half: Path) -> None:
    """Version 0.1.0 checks a file like this."""
    _, document = read_tensors(half)
    with pytest.raises(ModelFileError, match=r"has format 3 and this charlstm reads formats up to 2; a newer charlstm"):
        check_format(half, document, (1, 2))


@pytest.mark.slow
def test_training_starts_from_a_half_precision_file(run: Path, corpus: Path, half: Path) -> None:
    options = ("--batch-size", 4, "--seq-len", 16, "--epochs", 1, "-q", "--no-samples", "-o", "more")
    trained = charlstm("train", corpus, "--init-from", half, *options)
    assert trained.code == 0, trained.err
    assert read_tensors(Path("more/best.safetensors"))[1]["format"] == MODEL_FORMAT


def test_export_without_a_file_or_with_a_bad_one_gets_one_sentence(run: Path) -> None:
    assert_fails(charlstm("export", "-m", run), 2, "no format is named", "--charlstm")
    assert_fails(charlstm("export", "-m", run, "--charlstm", "x", "--weights", "fp8"), 2, "--weights", "fp16")
    assert_fails(charlstm("export", "-m", run, "--charlstm", "no/folder/x.safetensors"), 1, "no/folder")
    assert_fails(charlstm("export", "-m", "nothing", "--charlstm", "x"), 2, "no model at nothing")
