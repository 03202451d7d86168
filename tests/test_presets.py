"""The presets and corpora that ship with the package."""

from __future__ import annotations

import lzma
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from charlstm import presets
from tests.support.command_line import charlstm
from tests.support.texts import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", presets.preset_names())
def test_a_preset_resolves_and_its_description_states_the_time_on_2_cores(name: str) -> None:
    about = presets.describe_preset(name)
    assert "on 2 cores" in about
    assert len(about) < 110
    assert presets.load_preset(name)
    assert charlstm("train", "--preset", name, "--dry-run").code == 0


def test_the_help_of_train_names_every_preset() -> None:
    out = charlstm("train", "--help").text
    assert all(name in out for name in presets.preset_names())


def test_the_corpora_are_large_and_are_not_generated_from_templates() -> None:
    english = (presets.bundled_folder("corpora") / "english.txt").read_bytes()
    assert len(english) >= 100_000
    assert len(lzma.compress(english, preset=9 | lzma.PRESET_EXTREME)) * 8 / len(english) > 2.5
    assert len((presets.bundled_folder("corpora") / "chinese.txt").read_text("utf-8")) >= 20_000
    places = (presets.bundled_folder("corpora") / "places.txt").read_text("utf-8").splitlines()
    assert len(set(places)) == len(places) > 500


def test_the_wheel_contains_presets_corpora_and_a_model_and_needs_no_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "-q", "--no-deps", "--no-build-isolation", "-w", "dist"]
    subprocess.run(build, check=True, timeout=120)
    (wheel,) = Path("dist").glob("charlstm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall("site")
    Path("empty").mkdir()
    program = (
        "import sys; sys.path.insert(0, '../site'); import charlstm.cli.app as a; print(a.__file__); sys.exit(a.main())"
    )
    train = ["train", "--preset", "demo", "--max-time", "1s", "--hidden", "8", "-q"]
    for arguments in (["sample", "-l", "20"], ["eval", "-m", "builtin"], train):
        command = [sys.executable, "-c", program, *arguments]
        result = subprocess.run(command, cwd="empty", capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        assert "site/charlstm/cli/app.py" in result.stdout
    assert Path("empty/runs/english/best.safetensors").exists()
