"""`charlstm --version`, and with --debug what a bug report needs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from charlstm import __version__
from charlstm.cli.actions import version
from charlstm.runtime import find_time_limit
from tests.support.command_line import charlstm, run_process
from tests.support.modules import loaded_modules_after


def details(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition(" ") for line in text.splitlines())}


def test_version_alone_is_one_line_and_imports_neither_numpy_nor_torch() -> None:
    assert charlstm("--version").text == f"charlstm {__version__}\n"
    code = "import sys; sys.argv[1:] = ['--version']; from charlstm.cli.app import main; assert main() == 0"
    assert not {"numpy", "torch", "rich"} & loaded_modules_after(code)


@pytest.mark.slow
def test_a_bug_report_has_versions_machine_and_environment_but_not_the_user(tmp_path: Path) -> None:
    home = tmp_path / "alice-wonderland"
    environ = {
        "HOME": str(home),
        "USER": "alice",
        "LOGNAME": "alice",
        "CHARLSTM_CACHE": str(home / "cache"),
        "CHARLSTM_MODEL": "/scratch/alice/run",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "SECRET_TOKEN": "hunter2",
    }
    reports = [
        run_process(*options, environ=environ) for options in (("--version", "--debug"), ("--debug", "--version"))
    ]
    assert [report.code for report in reports] == [0, 0], reports[0].err
    found = details(reports[0].text)
    assert details(reports[1].text) == found
    assert list(found)[:2] == ["charlstm", "python"]
    assert found["charlstm"] == __version__
    for key in ("torch", "numpy", "processor", "features", "memory", "blas", "encoding"):
        assert found[key] and not found[key].startswith("unknown"), key
    assert found["cores"].startswith(f"{os.cpu_count()}, usable ")
    assert found["threads"].startswith("1 of torch")
    assert found["devices"].startswith("cpu")
    assert found["cache"] == "~/cache (0 files, 0 bytes)"
    assert (found["stdin"], found["stdout"]) == ("pipe", "pipe")
    assert (found["CHARLSTM_CACHE"], found["CHARLSTM_MODEL"]) == ("~/cache", "/scratch/~/run")
    assert (found["OMP_NUM_THREADS"], found["MALLOC_ARENA_MAX"]) == ("1", "2")
    assert "alice" not in reports[0].text and "hunter2" not in reports[0].text


def test_a_broken_installation_still_gives_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "charlstm.model.hardware", None)
    monkeypatch.setattr(version, "PACKAGES", ("numpy", "no-such-package"))
    monkeypatch.setattr(version, "retain_freed_memory", lambda: None)
    result = charlstm("--version", "--debug")
    assert (result.code, result.err) == (0, "")
    found = details(result.text)
    assert found["no-such-package"] == "not installed"
    assert found["features"].startswith("unknown (ModuleNotFoundError: ")


@pytest.mark.parametrize(
    ("files", "own", "limit"),
    [
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"cpu.max": "max 100000\n", "a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", 1.5),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n0::/\n", 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n", None),
        ({}, "", None),
    ],
)
def test_the_limit_of_control_groups_is_the_smallest_of_all(
    tmp_path: Path, files: dict[str, str], own: str, limit: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text, "ascii")
    (tmp_path / "own").write_text(own, "ascii")
    assert find_time_limit(tmp_path / "tree", tmp_path / "own") == limit


def test_debug_before_a_command_shows_its_traceback() -> None:
    assert "Traceback" in charlstm("--debug", "sample", "-m", "nothing").err
    assert "Traceback" in charlstm("sample", "-m", "nothing", "--debug").err
    assert "Traceback" not in charlstm("sample", "-m", "nothing").err
