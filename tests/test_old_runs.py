"""Runs of version 0.1.0, one of each kind, sampled, evaluated and resumed by this version.

fixtures/version-0.1.0-alpha/README.md has the commands that made them. Their files use the names of that version:
`training.optimiser`, `[regularisation]`, `data.unit`.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import assert_fails, charlstm

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "fixtures" / "version-0.1.0-alpha"
CORPUS = (FOLDER / "corpus.txt").read_bytes()
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text("utf-8"))
RUNS: dict[str, Any] = EXPECTED["runs"]
FILES = {"gru": "corpus.txt", "files": "documents"}
"""What the runs that did not read stdin were trained on."""

RENAMED = {"data.unit": "data.level", "training.optimiser": "training.optimizer"}
RENAMED_METRICS = {"forward_restored": "forward_accuracy", "both_sides_restored": "both_sides_accuracy"}
REMOVED = ("training.batch_size_start", "training.seq_len_start", "training.clip_value")

each_run = pytest.mark.parametrize("name", RUNS)
each_resumable_run = pytest.mark.parametrize("name", [name for name, run in RUNS.items() if "resumed" in run])


def copy_run(name: str) -> Path:
    """A copy of a run in the working folder, next to the text that it was trained on."""
    shutil.copytree(FOLDER / name, name)
    Path("corpus.txt").write_bytes(CORPUS)
    Path("documents").mkdir()
    for number, stanza in enumerate(CORPUS.split(b"\n\n")):
        Path(f"documents/{number:02}.txt").write_bytes(stanza.rstrip(b"\n") + b"\n")
    return Path(name)


def rename(key: str) -> str:
    """The name of a setting of version 0.1.0 in this version."""
    return RENAMED.get(key, key.replace("regularisation.", "regularization."))


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a TOML document by `section.key`."""
    return {f"{section}.{key}": value for section, values in tree.items() for key, value in values.items()}


def make_flags(options: Mapping[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def read_lines(run: Path) -> list[dict[str, Any]]:
    """Return the lines that every version writes: later ones add one of the best model."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if "best_step" not in line]


def read_float_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file that holds no others, read without charlstm."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    header.pop("__metadata__")
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[begin + first : begin + last], "<f4").reshape(entry["shape"])
    return tensors


def resume(name: str) -> Path:
    """A copy of a run, trained for the epochs that version 0.1.0 trained its own copy for."""
    run, corpus = copy_run(name), [FILES[name]] if name in FILES else []
    epochs = RUNS[name]["resumed"]["epochs"]
    resumed = charlstm("train", *corpus, "--resume", "-o", run, "--epochs", epochs, "--no-samples")
    assert resumed.code == 0, resumed.err
    return run


@each_run
def test_an_old_run_samples_the_same_text(name: str) -> None:
    run = copy_run(name)
    for entry in RUNS[name]["samples"]:
        options = {option: value for option, value in entry.items() if option != "text"}
        sampled = charlstm("sample", "-m", run, "--weights", "fp32", *make_flags(options))
        assert sampled.code == 0, sampled.err
        assert sampled.out == entry["text"].encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if "fills" in run])
def test_an_old_run_fills_gaps_with_the_same_text(name: str) -> None:
    run = copy_run(name)
    for entry in RUNS[name]["fills"]:
        filled = charlstm("fill", entry["text"], "-m", run, "--seed", entry["seed"], "--num", entry["num"])
        assert filled.code == 0, filled.err
        assert filled.text.splitlines() == entry["lines"]


@each_run
def test_an_old_run_evaluates_to_the_same_metrics(name: str) -> None:
    run = copy_run(name)
    text = Path(FILES[name]) if name in FILES else None
    files = [] if text is None else sorted(text.iterdir()) if text.is_dir() else [text]
    evaluated = charlstm("eval", "-m", run, "--json", *files)
    assert evaluated.code == 0, evaluated.err
    metrics = json.loads(evaluated.out)
    expected = {RENAMED_METRICS.get(key, key): value for key, value in RUNS[name]["metrics"].items()}
    assert {key: metrics.get(key) for key in expected} == pytest.approx(expected, rel=1e-5, abs=1e-5)


@each_resumable_run
def test_an_old_run_resumes_with_the_same_steps_and_losses(name: str) -> None:
    expected = RUNS[name]["resumed"]["logged"]
    before, lines = read_lines(FOLDER / name), read_lines(resume(name))
    assert lines[: len(before)] == before
    added = lines[len(before) :]
    assert [line["step"] for line in added] == [entry["step"] for entry in expected]
    for line, entry in zip(added, expected, strict=True):
        assert {key: line.get(key) for key in entry} == pytest.approx(entry, rel=1e-4, abs=1e-4)


@each_resumable_run
def test_an_old_run_resumes_with_the_same_weights(name: str) -> None:
    expected = RUNS[name]["resumed"]["tensors"]
    tensors = read_float_tensors(resume(name) / "last.safetensors")
    assert {key: list(tensor.shape) for key, tensor in tensors.items()} == {
        key: entry["shape"] for key, entry in expected.items()
    }
    for key, entry in expected.items():
        tensor = tensors[key].astype(np.float64)
        assert [tensor.sum(), np.abs(tensor).sum()] == pytest.approx([entry["sum"], entry["absolute_sum"]], abs=1e-3)


@each_resumable_run
def test_a_resumed_old_run_stores_its_settings_under_the_new_names(name: str) -> None:
    run, epochs = resume(name), RUNS[name]["resumed"]["epochs"]
    stored = flatten(tomllib.loads((run / "config.toml").read_text("utf-8")))
    corpus = {"data.corpus": [str(Path(FILES[name]).absolute())]} if name in FILES else {}
    settings = {rename(key): value for key, value in RUNS[name]["settings"].items()}
    expected = settings | {"training.epochs": epochs} | corpus
    assert {key: stored.get(key) for key in expected} == expected
    old = flatten(tomllib.loads((FOLDER / name / "config.toml").read_text("utf-8")))
    assert stored.keys() >= {rename(key) for key in old} - set(REMOVED)
    assert stored.keys().isdisjoint({*REMOVED, *(key for key in old if rename(key) != key)})


def test_an_old_run_that_diverges_falls_back_to_its_old_good_state() -> None:
    run = copy_run("interrupted")
    resumed = charlstm("train", "--resume", "-o", run, "--epochs", 21, "--lr", 100, "--no-samples")
    assert resumed.code in (0, 3), resumed.err
    assert "back to step 600" in resumed.err
    assert next(line["step"] for line in read_lines(run) if "diverged_at_step" in line) == 600


def test_a_config_file_with_old_names_is_read() -> None:
    shown = charlstm("train", "-", "--config", FOLDER / "settings.toml", "--dry-run", stdin=CORPUS)
    assert shown.code == 0, shown.err
    stored = flatten(tomllib.loads(shown.text))
    old = tomllib.loads((FOLDER / "settings.toml").read_text("utf-8"))
    del old["about"]
    expected = {rename(key): value for key, value in flatten(old).items() if key not in REMOVED}
    assert {key: stored.get(key) for key in expected} == expected
    assert stored.keys().isdisjoint(REMOVED)


@pytest.mark.parametrize(
    ("key", "value"), [("regularisation.l1", "0.001"), ("training.optimiser", "sgd"), ("data.unit", "byte")]
)
def test_an_old_name_after_set_is_an_error_that_names_the_new_one(key: str, value: str) -> None:
    result = charlstm("train", "-", "--set", f"{key}={value}", "--dry-run", stdin=CORPUS)
    assert_fails(result, 2, key, rename(key))


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("CHARLSTM_OPTIMISER", "CHARLSTM_OPTIMIZER", "sgd"), ("CHARLSTM_UNIT", "CHARLSTM_LEVEL", "byte")],
)
def test_an_old_variable_is_an_error_that_names_the_new_one(old: str, new: str, value: str) -> None:
    assert_fails(charlstm("train", "-", "--dry-run", stdin=CORPUS, environ={old: value}), 2, old, new)


@pytest.mark.parametrize("key", REMOVED)
def test_a_removed_setting_in_a_config_file_may_only_have_its_old_default(key: str) -> None:
    section, _, name = key.partition(".")
    Path("unchanged.toml").write_text(f"[{section}]\n{name} = 0\n")
    Path("changed.toml").write_text(f"[{section}]\n{name} = 4\n")
    small = ("--batch-size", 2, "--seq-len", 8, "--dry-run")
    accepted = charlstm("train", "-", "--config", "unchanged.toml", *small, stdin=CORPUS)
    assert accepted.code == 0, accepted.err
    rejected = charlstm("train", "-", "--config", "changed.toml", *small, stdin=CORPUS)
    assert_fails(rejected, 2, "changed.toml", key)


def test_an_old_run_that_used_a_removed_setting_cannot_be_resumed() -> None:
    run = copy_run("removed-keys")
    before = (run / "state.safetensors").read_bytes()
    assert_fails(charlstm("train", "--resume", "-o", run, "--epochs", 10), 2, "training.batch_size_start")
    assert (run / "state.safetensors").read_bytes() == before


def test_an_old_search_is_not_continued_since_it_searched_other_ranges() -> None:
    search, expected = copy_run("search"), EXPECTED["search"]
    continued = charlstm("tune", "-", "-o", search, "--trials", 1, *expected["options"], stdin=CORPUS)
    assert_fails(continued, 2, "holds a search of an earlier version, with other ranges", "-o")
    for name in ("best.safetensors", "best.toml"):
        assert (search / name).read_bytes() == (FOLDER / "search" / name).read_bytes()


def test_the_best_settings_of_an_old_search_are_read() -> None:
    search = copy_run("search")
    shown = charlstm("train", "-", "--config", search / "best.toml", "--dry-run", stdin=CORPUS)
    assert shown.code == 0, shown.err
    stored = flatten(tomllib.loads(shown.text))
    found = {rename(key): value for key, value in EXPECTED["search"]["best"].items()}
    assert {key: stored.get(key) for key in found} == found
