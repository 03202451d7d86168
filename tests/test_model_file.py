"""The model file: round trips, and errors for damaged, inconsistent and newer files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from charlstm.errors import CharlstmError, ModelFileError
from charlstm.storage.files import move_atomically, open_atomically, write_atomically
from charlstm.storage.model import ModelFile
from charlstm.storage.tensors import METADATA_KEY, compute_checksum, read_tensors, write_tensors
from tests.support.command_line import assert_fails, charlstm


def test_a_saved_model_is_loaded_unchanged(run: Path, tmp_path: Path) -> None:
    first = ModelFile.load(run / "best.safetensors")
    first.save(tmp_path / "copy.safetensors")
    again = ModelFile.load(tmp_path / "copy.safetensors")
    assert again.config == first.config
    assert again.vocabulary.to_dict() == first.vocabulary.to_dict()
    assert again.corpus == first.corpus
    assert again.metrics == first.metrics
    for name, weight in first.weights.items():
        np.testing.assert_array_equal(again.weights[name], weight)
    assert (tmp_path / "copy.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()


def test_the_safetensors_package_can_read_a_model_file(run: Path) -> None:
    with safe_open(run / "best.safetensors", framework="numpy") as file:
        assert file.get_tensor("layers.0.weight_hh").dtype == np.float32
        assert json.loads(file.metadata()["charlstm"])["format"] == 2


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_model_file_is_rejected_by_an_error_that_names_it(
    run: Path, tmp_path: Path, data: st.DataObject
) -> None:
    whole = (run / "best.safetensors").read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    if data.draw(st.booleans()):
        damaged.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        at, flip = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    try:
        ModelFile.load(damaged)
    except CharlstmError as error:
        assert "damaged.safetensors" in str(error)
    else:  # only padding of the header has changed
        assert ModelFile.load(damaged).metrics == ModelFile.load(run / "best.safetensors").metrics


def test_commands_that_read_a_damaged_model_file_exit_with_status_1(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((run / "best.safetensors").read_bytes()[:-100])
    assert_fails(charlstm("sample", "-m", broken), 1, "broken.safetensors", "not a charlstm model file")
    assert_fails(charlstm("eval", "-m", broken), 1, "broken.safetensors")
    broken.write_bytes(b"no model at all")
    assert_fails(charlstm("sample", "-m", broken), 1, "broken.safetensors")


def alter(run: Path, path: Path, change: dict[str, object], drop: str = "") -> Path:
    """Write a model file with a correct checksum and a changed document, or without one of the tensors."""
    tensors, document = read_tensors(run / "best.safetensors")
    tensors.pop(drop, None)
    write_tensors(path, tensors, {**document, **change})
    return path


def test_a_model_file_of_a_newer_format_is_rejected(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="has format 4 and this charlstm reads formats up to 3"):
        ModelFile.load(alter(run, tmp_path / "new.safetensors", {"format": 4}))


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"model": {"hidden": 10**9}}},
        {"config": {"model": {"wings": 2}}},
        {"config": {"data": {"encoding": "x" * 5000}}},
        {"config": 3},
        {"vocabulary": {}},
        {"vocabulary": None},
        {"corpus": 7},
    ],
)
def test_an_inconsistent_model_file_is_rejected(run: Path, tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ModelFileError):
        ModelFile.load(alter(run, tmp_path / "odd.safetensors", change))


def test_a_model_file_without_one_of_its_weights_is_rejected(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="do not fit"):
        ModelFile.load(alter(run, tmp_path / "less.safetensors", {}, drop="head.bias"))


def test_a_model_file_with_nan_in_its_weights_is_rejected(run: Path, tmp_path: Path) -> None:
    tensors, document = read_tensors(run / "best.safetensors")
    tensors["head.bias"][3] = np.nan
    write_tensors(tmp_path / "nan.safetensors", tensors, document)
    with pytest.raises(ModelFileError, match="not finite"):
        ModelFile.load(tmp_path / "nan.safetensors")


def test_a_safetensors_file_of_another_program_is_rejected(tmp_path: Path) -> None:
    save_file({"x": np.ones(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelFileError, match="not a charlstm model file"):
        ModelFile.load(tmp_path / "other.safetensors")


def test_the_same_tensors_and_document_are_written_as_the_same_bytes(tmp_path: Path) -> None:
    tensors = {name: np.ones(3, np.float32) for name in "cab"}
    for name in ("one", "two"):
        write_tensors(tmp_path / name, tensors, {"b": 1, "a": 2})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_scalar_tensor_keeps_its_shape(tmp_path: Path) -> None:
    write_tensors(tmp_path / "scalar", {"step": np.float32(3) * np.ones((), np.float32)}, {})
    tensors, document = read_tensors(tmp_path / "scalar")
    assert tensors["step"].shape == ()
    assert document == {}
    assert compute_checksum(tensors, document) != compute_checksum({}, document)
    assert METADATA_KEY == "charlstm"


@pytest.mark.parametrize("failing", ["fsync", "write"])
def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(os, "fdopen", fail)
    with pytest.raises(CharlstmError, match=r"cannot write .*: No space left on device; free disk space$"):
        write_atomically(path, b"after")
    monkeypatch.undo()
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("offsets", [[], [0], [0, 4, 8], [8, 0], ["0", "4"], None, {}])
def test_malformed_tensor_offsets_are_rejected(offsets: object, tmp_path: Path) -> None:
    header = json.dumps(
        {"__metadata__": {"charlstm": "{}"}, "a": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}
    )
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    with pytest.raises(ModelFileError, match="not a charlstm model file"):
        read_tensors(path)


def test_a_file_is_moved_to_another_file_system_by_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"text")
    replace = Path.replace

    def cross_device(self: Path, to: Path) -> Path:
        if self == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", cross_device)
    move_atomically(source, target)
    assert target.read_bytes() == b"text"
    assert list(tmp_path.iterdir()) == [target]


def test_a_pipe_or_a_folder_is_not_replaced_by_a_file(run: Path) -> None:
    """Nor is a device, such as /dev/stdout: root could replace it."""
    os.mkfifo("pipe")
    Path("folder").mkdir()
    for target in ("pipe", "folder"):
        written = charlstm("inspect", "-m", run, "-l", 300, "--html", target)
        assert_fails(written, 1, f"cannot write {target}: it is not a regular file")
    assert Path("pipe").is_fifo()


def test_an_error_in_the_block_that_writes_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), open_atomically(path) as file:
        file.write(b"aft")
        raise ZeroDivisionError
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
