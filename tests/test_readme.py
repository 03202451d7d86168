"""The README's commands, run as typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from charlstm import presets
from tests.conftest import ENGLISH, ROOT

README = (ROOT / "README.md").read_text("utf-8")


def commands(heading: str, language: str) -> list[str]:
    """The blocks of that language under a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


TRAINING, PIPELINES = commands("In the shell", "sh")


@pytest.fixture
def shell(run: Path, tmp_path: Path) -> dict[str, str]:
    """A folder with a run and a text in it, and an environment that finds the command."""
    shutil.copytree(run, tmp_path / "runs" / "letters")
    (tmp_path / "letters.txt").write_text(ENGLISH[:2500], "utf-8")
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("command", PIPELINES.splitlines())
def test_a_pipeline_works_as_typed(command: str, shell: dict[str, str]) -> None:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=shell, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_the_three_commands_work_one_after_the_other(shell: dict[str, str]) -> None:
    shutil.rmtree("runs")
    done = subprocess.run(["bash", "-ec", TRAINING], capture_output=True, text=True, env=shell, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("runs/letters\n")
    assert "bits per byte" in done.stdout


def test_the_python_example_works(shell: dict[str, str]) -> None:
    (example,) = commands("From Python", "python")
    quick = example.replace("charlstm.Config()", "charlstm.Config(training=charlstm.TrainingConfig(epochs=1))")
    done = subprocess.run([sys.executable, "-c", quick], capture_output=True, text=True, env=shell, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "nats a character" in done.stdout
    assert "Finished(reason='done'" in done.stdout


def test_every_preset_is_named() -> None:
    assert all(f"`{name}`" in README for name in presets.preset_names())


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)[)#]", README):
        assert (ROOT / target).exists(), target
