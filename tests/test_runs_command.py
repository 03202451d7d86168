"""`charlstm runs`: a table of runs, also while they train."""

from __future__ import annotations

import json
import re
import shutil
import sys
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest

from charlstm.cli.app import main
from charlstm.console import Console
from charlstm.storage.lock import ProcessLock
from charlstm.storage.run import RunFolder
from charlstm.training.events import Stepped
from charlstm.training.run import run_training
from tests.support.command_line import Terminal, assert_fails, charlstm
from tests.support.training import CORPUS, make_config

OLD = Path(__file__).parent / "fixtures"


def list_runs(*arguments: object) -> list[dict[str, Any]]:
    listed = charlstm("runs", *arguments, "--json")
    assert listed.code == 0, listed.err
    return [json.loads(line) for line in listed.text.splitlines()]


def describe(folder: Path) -> dict[str, Any]:
    (run,) = list_runs(folder)
    return run


@pytest.fixture
def two(run: Path) -> Path:
    """Return a folder with two copies of a run, the second with another loss."""
    for name in ("first", "second"):
        shutil.copytree(run, Path("many") / name)
    metrics = Path("many/second/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    lines[-1]["best_validation_loss_nats"] = 0.5
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Path("many")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_a_link_to_a_run_is_listed_and_other_links_are_not_followed(two: Path) -> None:
    Path("runs/deep").mkdir(parents=True)
    Path("runs/deep/linked").symlink_to(two.absolute() / "first", target_is_directory=True)
    Path("runs/back").symlink_to(two.absolute(), target_is_directory=True)
    Path("runs/circle").symlink_to(Path("runs").absolute(), target_is_directory=True)
    assert [Path(run["run"]) for run in list_runs()] == [Path("runs/deep/linked")]


def test_a_run_is_in_training_while_it_is_locked_then_stopped_then_ended(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    events = run_training(CORPUS, make_config(), folder)
    while not (isinstance(event := next(events), Stepped) and event.step == 15):
        pass
    during = describe(folder.path)
    assert during["state"] == "training"
    assert 0 < during["fraction_done"] < 1
    assert during["step"] == 10
    events.close()
    assert describe(folder.path)["state"] == "stopped"
    (folder.path / "lock").write_text("pid 1\n")  # what a killed process leaves
    assert describe(folder.path)["state"] == "stopped"
    *_, finished = run_training(CORPUS, make_config(), folder, resume=True)
    after = describe(folder.path)
    assert after["state"] == "ended"
    assert after["fraction_done"] == 1
    assert after["passes"] == 2
    assert after["best_loss_nats"] == pytest.approx(finished.best_loss_nats)  # type: ignore[union-attr]


def test_looking_at_the_lock_of_a_run_does_not_keep_a_process_from_training_there(tmp_path: Path) -> None:
    stale = tmp_path / "lock"
    stale.write_text("pid 1\n")
    looking, training = ProcessLock(stale), ProcessLock(stale)
    assert not looking.is_held()
    training.acquire()
    assert looking.is_held()
    training.release()
    assert not looking.is_held()


def test_the_table_has_a_line_per_run_and_sorts_it(two: Path) -> None:
    table = charlstm("runs", two, "--sort", "loss")
    assert table.code == 0, table.err
    header, *rows = table.text.splitlines()
    assert header.split()[:3] == ["run", "state", "model"]
    assert [row.split()[0] for row in rows] == ["second", "first"]
    assert "ended" in rows[0] and "lstm 1x48" in rows[0] and "letters.txt" in rows[0] and "0.5000" in rows[0]
    assert [run["run"] for run in list_runs(two, "--sort", "name")] == ["many/first", "many/second"]


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
def test_the_table_fits_a_terminal_and_keeps_name_state_and_loss(two: Path, columns: int) -> None:
    out = Terminal()
    console = Console(Terminal(), out, StringIO(), {"COLUMNS": str(columns), "NO_COLOR": "1"})
    assert main(["runs", str(two)], console) == 0
    lines = out.getvalue().decode().splitlines()
    assert max(map(len, lines)) <= max(columns, 50)  # the columns that are never left out
    assert all(word in lines[0] for word in ("run", "state", "nats/char"))


def test_runs_of_every_earlier_version_are_listed() -> None:
    found = {run["run"].rpartition("fixtures/")[2]: run for run in list_runs(OLD)}
    assert found["version-1"]["state"] == "ended"
    assert not any(run["damage"] for run in found.values())
    assert found["version-1"]["best_loss_nats"] == pytest.approx(3.149, abs=0.01)
    assert found["version-0.1.0-alpha/interrupted"]["state"] == "stopped"
    assert found["version-0.1.0-alpha/lstm"]["passes"] == pytest.approx(7.89, abs=0.01)
    assert not any("/" in name for run in found.values() for name in run["corpus"])


@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors", "state.safetensors"])
@pytest.mark.parametrize("length", [0, 1000, -1])
def test_a_run_with_a_model_or_a_state_that_was_cut_short_is_marked_as_damaged(
    two: Path, name: str, length: int
) -> None:
    file = two / "first" / name
    file.write_bytes(file.read_bytes()[:length])
    assert_damaged(two, name)


def assert_damaged(two: Path, name: str) -> None:
    """Assert that the first of two runs is listed as damaged, with the file on stderr and in the JSON."""
    listed = charlstm("runs", two)
    assert listed.code == 0
    states = {row.split()[0]: row.split()[1] for row in listed.text.splitlines()[1:]}
    assert states == {"first": "damaged", "second": "ended"}
    assert re.search(f"warning: many/first is damaged: .*many/first/{name}", listed.err)
    damage = {Path(run["run"]).name: run["damage"] for run in list_runs(two)}
    assert name in damage["first"] and damage["second"] is None


@pytest.mark.parametrize(
    ("name", "content"), [("config.toml", "not = [toml"), ("config.toml", "\x7f\x00"), ("metrics.jsonl", "garbage\n")]
)
def test_a_run_with_garbage_in_a_text_file_is_marked_as_damaged(two: Path, name: str, content: str) -> None:
    (two / "first" / name).write_text(content)
    assert_damaged(two, name)


def test_a_run_without_a_readable_model_is_left_out_with_a_warning(two: Path) -> None:
    for name in ("last", "best"):
        (two / "first" / f"{name}.safetensors").write_bytes(b"not a model")
    listed = charlstm("runs", two)
    assert listed.code == 0
    assert "first" not in listed.text
    assert "warning: many/first is left out" in listed.err


def test_a_run_of_one_step_has_no_speed_yet_and_few_passes(two: Path) -> None:
    line = {"step": 1, "passes": 0.00021, "chars_per_second": 0, "seconds": 1.0}
    (two / "first/metrics.jsonl").write_text(f"{json.dumps(line)}\n")
    (row,) = [row.split() for row in charlstm("runs", two).text.splitlines() if "first" in row]
    assert "<0.01" in row and "0.00021" not in row
    assert row[-3] == "-"
    corpus = two / "letters.txt"
    corpus.write_text("abcdefgh" * 100)
    size = ("--hidden", 8, "--batch-size", 1, "--seq-len", 640, "--epochs", 1)
    assert charlstm("train", corpus, "-o", "one", "--set", "training.segment_len=640", *size).code == 0
    assert "chars_per_second" not in json.loads(Path("one/metrics.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize("argument", ["nowhere", "empty", "file"])
def test_a_folder_without_runs_is_an_error(argument: str) -> None:
    Path("empty").mkdir()
    Path("file").touch()
    assert_fails(charlstm("runs", argument), 2, argument)


def test_colors_are_for_terminals(two: Path) -> None:
    assert "\x1b" not in charlstm("runs", two).text
    out = BytesIO()
    assert main(["runs", str(two), "--color", "always"], Console(None, out, StringIO(), {})) == 0
    assert b"\x1b[2m" in out.getvalue()
