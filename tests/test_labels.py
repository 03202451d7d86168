"""Names from files and the command line are escaped on the terminal, and never lead to another folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from charlstm.data.corpus import derive_run_name
from charlstm.storage.model import ModelFile
from charlstm.storage.tensors import read_tensors, write_tensors
from tests.support.command_line import Result, assert_fails, charlstm
from tests.support.texts import ENGLISH, SMALL

BAD = "a\x1b[31m\x9b2J\u202e\rb"


def harmless(result: Result) -> Result:
    assert all(c.isprintable() or c == "\n" for c in result.err), result.err
    return result


def test_file_names_are_escaped_on_the_terminal() -> None:
    Path(f"{BAD}.txt").write_text(ENGLISH[:4000], "utf-8")
    trained = harmless(charlstm("train", f"{BAD}.txt", *SMALL, "--epochs", 1))
    assert trained.code == 0, trained.err
    assert r"a\x1b[31m" in trained.err
    run = Path("runs") / BAD
    assert run.is_dir()
    assert harmless(charlstm("train", "--resume", "-o", run, "--epochs", 2)).code == 0
    assert harmless(charlstm("sample", "-l", 5)).code == 0
    assert harmless(charlstm("sample", "-m", run, "-l", 5)).code == 0
    evaluated = harmless(charlstm("eval"))
    assert evaluated.code == 0
    assert all(c.isprintable() or c == "\n" for c in evaluated.text)
    assert_fails(harmless(charlstm("train", f"{BAD}.txt", *SMALL)), 2, "already holds a run")
    assert_fails(harmless(charlstm("sample", "-m", f"{BAD}no")), 2, "there is no model")
    (run / "best.safetensors").write_bytes(b"x")
    assert_fails(harmless(charlstm("sample", "-m", run)), 1, "not a charlstm model file")


def test_unknown_characters_are_escaped_on_the_terminal(run: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:4000] + "\x1b\x9b\x07" * 200, "utf-8")
    small = ("--batch-size", 4, "--seq-len", 16, "--epochs", 1, "--set", "training.validate_every=50")
    trained = harmless(charlstm("train", "x.txt", "--init-from", run, *small))
    assert trained.code == 0, trained.err
    assert r"start with new weights: \x07\x1b\x9b" in trained.err
    rejected = charlstm("eval", "-m", run, "x.txt")
    assert rejected.code == 2
    assert "U+001B" in harmless(rejected).err


def test_values_of_a_model_file_are_escaped_on_the_terminal(run: Path, tmp_path: Path) -> None:
    tensors, document = read_tensors(run / "best.safetensors")
    model = tmp_path / "model.safetensors"
    for section, key in (("model", "cell"), ("data", "encoding"), ("data", "corpus")):
        config = {**document["config"], section: {**document["config"][section], key: BAD}}
        write_tensors(model, tensors, document | {"config": config})
        assert harmless(charlstm("eval", "-m", model)).code == 1
    write_tensors(model, tensors, document | {"config": {BAD: {}}, "format": 1})
    assert harmless(charlstm("sample", "-m", model)).code == 1
    write_tensors(model, tensors, document | {"format": BAD})
    assert harmless(charlstm("sample", "-m", model)).code == 1


@pytest.mark.parametrize("corpus", ["..", ".", "/", "a/..", "..gz", "...gz", "../x.txt", "/tmp/..txt.xz", "-", "x/.gz"])
def test_a_run_folder_is_always_inside_the_folder_of_runs(corpus: str) -> None:
    name = derive_run_name([corpus])
    assert name not in ("", ".", "..")
    assert Path(name).name == name


def test_a_tensor_name_is_never_used_as_a_path(run: Path, tmp_path: Path) -> None:
    tensors, document = read_tensors(run / "best.safetensors")
    write_tensors(tmp_path / "m.safetensors", tensors | {"../../escaped": tensors["head.bias"]}, document)
    assert_fails(charlstm("sample", "-m", tmp_path / "m.safetensors"), 1, "do not fit its own configuration")
    assert not list(tmp_path.parent.parent.glob("escaped*"))
    assert ModelFile.load(run / "best.safetensors").metrics["step"] > 0
