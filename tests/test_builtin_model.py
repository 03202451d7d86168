"""The model that ships with charlstm: its file, and the commands that name it or fall back to it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import charlstm as package
from charlstm.storage.locate import BUILTIN_MODEL
from charlstm.storage.model import ModelFile
from charlstm.storage.tensors import read_tensors
from tests.support.command_line import assert_fails, charlstm
from tests.support.modules import loaded_modules_after
from tests.support.texts import ENGLISH, ROOT

MAX_BYTES = 1_000_000
SEED = ("--seed", 1)


def strings(value: Any) -> Iterator[str]:
    """Yield every text of a JSON value, the keys of its objects included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def test_the_file_is_small_and_contains_no_path() -> None:
    assert BUILTIN_MODEL.stat().st_size < MAX_BYTES
    tensors, document = read_tensors(BUILTIN_MODEL)
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float16"}
    assert document["config"]["data"]["corpus"] == ["english.txt"]
    texts = [text for text in strings(document) if text != document["vocabulary"]["characters"]]
    assert not [text for text in texts if "/" in text or "\\" in text or str(ROOT) in text]


def test_the_file_is_what_the_command_of_make_model_trains() -> None:
    recipe = (ROOT / "Makefile").read_text("utf-8").partition("\nmodel:")[2].partition("\n\n")[0].replace("\\\n", "")
    (train,) = re.findall(r"charlstm train (.+)", recipe)
    planned = charlstm("train", *shlex.split(train.replace("corpora/", f"{ROOT}/corpora/")), "--dry-run", "--json")
    assert planned.code == 0, planned.err
    wanted, config = json.loads(planned.out), ModelFile.load(BUILTIN_MODEL).config.to_dict()
    for section in ("model", "training", "regularization", "card"):
        assert config[section] == wanted[section]


def test_the_model_writes_words_of_its_corpus_and_does_not_loop() -> None:
    written = charlstm("sample", "-m", "builtin", "-l", 3000, "-t", 0.7, *SEED).text
    words = [word.strip(string.punctuation) for word in written.lower().split()]
    known = {word.strip(string.punctuation) for word in ENGLISH.lower().split()}
    assert sum(word in known for word in words) > 0.9 * len(words)
    assert len(set(words)) > 200


def test_sample_in_a_folder_without_runs_uses_the_model_and_says_so() -> None:
    sampled = charlstm("sample", "-l", 80, *SEED)
    assert sampled.code == 0, sampled.err
    assert "there is no run under ./runs" in sampled.err
    assert "builtin" in sampled.err and "charlstm train" in sampled.err
    named = charlstm("sample", "-m", "builtin", "-l", 80, *SEED)
    assert named.err == ""
    assert named.out == sampled.out
    assert len(named.text) == 81


def test_sample_in_a_folder_without_runs_fails_with_quiet() -> None:
    assert_fails(charlstm("sample", "-q"), 2, "no run under ./runs", "builtin", "charlstm train")


@pytest.mark.parametrize("command", ["eval", "inspect", "fill the_end", "export --charlstm x"])
def test_other_commands_do_not_fall_back(command: str) -> None:
    assert_fails(charlstm(*command.split()), 2, "no run under ./runs", "builtin")
    assert_fails(charlstm("score", stdin=b"Maud"), 2, "no run under ./runs", "builtin")


def test_a_run_or_the_environment_takes_precedence(run: Path) -> None:
    environ = {"CHARLSTM_MODEL": str(run)}
    expected = charlstm("sample", "-m", run, "-l", 60, *SEED).out
    assert charlstm("sample", "-l", 60, *SEED, environ=environ).out == expected
    shutil.copytree(run, "runs/mine")
    assert charlstm("sample", "-l", 60, *SEED).out == expected


@pytest.mark.parametrize("name", ["builtin", "builtin/best.safetensors"])
def test_an_existing_path_of_that_name_wins(run: Path, name: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    shutil.copy(run / "best.safetensors", name)
    expected = charlstm("sample", "-m", run, "-l", 60, *SEED).out
    assert charlstm("sample", "-m", "builtin", "-l", 60, *SEED).out == expected
    assert charlstm("sample", "-l", 60, *SEED, environ={"CHARLSTM_MODEL": "builtin"}).out == expected


@pytest.mark.slow
def test_every_command_that_reads_a_model_takes_builtin() -> None:
    evaluated = charlstm("eval", "-m", "builtin", "--json")
    assert json.loads(evaluated.out)["model"] == "builtin"
    assert json.loads(evaluated.out)["loss_nats"] < 1.4
    assert charlstm("fill", "-m", "builtin", "The cl_ck", *SEED).text == "The clock\n"
    scored = charlstm("score", "-m", "en=builtin", "--by", "line", "--json", stdin=b"The clock was late.\n")
    assert json.loads(scored.out)["loss_nats"] < 2
    inspected = charlstm("inspect", "-m", "builtin", "-l", 2000, "--json")
    assert json.loads(inspected.out)["model"] == "builtin"
    exported = charlstm("export", "-m", "builtin", "--charlstm", "copy.safetensors", "--weights", "fp16")
    assert exported.code == 0, exported.err
    assert Path("copy.safetensors").read_bytes() == BUILTIN_MODEL.read_bytes()
    novelty = charlstm("sample", "-m", "builtin", "--novelty", "--json", *SEED)
    assert json.loads(novelty.out)["copied_share"] < 0.9


@pytest.mark.slow
def test_training_continues_from_builtin(corpus: Path) -> None:
    options = ("--batch-size", 4, "--seq-len", 16, "--epochs", 1, "--lr", 1e-4, "-q", "--no-samples", "-o", "more")
    trained = charlstm("train", corpus, "--init-from", "builtin", *options)
    assert trained.code == 0, trained.err
    metrics = json.loads(charlstm("eval", "-m", "more", "--json").out)
    assert metrics["loss_nats"] < 1.6  # a new model is above 3 after one pass
    averaged = charlstm("sample", "-m", "builtin", "--average", "builtin", "-l", 20, *SEED, "-t", 0)
    assert averaged.out == charlstm("sample", "-m", "builtin", "-l", 20, "-t", 0).out


def test_python_loads_builtin() -> None:
    assert "".join(package.load("builtin").generate("Maud ", seed=1))
    assert package.evaluate("builtin", "It was raining on the quay.").loss_nats < 2


@pytest.mark.slow
def test_sampling_with_it_imports_no_torch() -> None:
    loaded = loaded_modules_after("from charlstm.cli.app import main; assert main(['sample', '-l', '5']) == 0")
    assert "numpy" in loaded
    assert "torch" not in loaded
