"""How a process that trains uses the machine: memory, and where numba keeps what it has compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import charlstm as package
from charlstm.storage.cache import cache_folder, clear_cache, list_cache
from tests.support.command_line import run_process
from tests.support.texts import SMALL

pytestmark = pytest.mark.slow


COUNT_PAGE_FAULTS = """
from charlstm.runtime import retain_freed_memory
import resource, numpy as np
retain_freed_memory()
np.ones(4_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(4_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
MAX_PAGE_FAULTS = 1000
"""One array of 32 MB that is mapped again has 7,800."""


@pytest.mark.skipif(sys.platform != "linux", reason="changes a setting of glibc")
@pytest.mark.parametrize(("environ", "reused"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_freed_memory_is_reused_unless_the_user_has_configured_malloc(environ: dict[str, str], reused: bool) -> None:
    command = [sys.executable, "-c", COUNT_PAGE_FAULTS]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    page_faults = int(subprocess.run(command, env=inherited | environ, capture_output=True, check=True).stdout)
    assert (page_faults < MAX_PAGE_FAULTS) == reused


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("environ", "expected"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, min(2, os.cpu_count() or 1))]
)
def test_a_sample_is_written_on_one_thread_unless_the_user_has_configured_more(
    environ: dict[str, str], expected: int
) -> None:
    """Threads that share small products wait for each other, next to another program for most of the time."""
    command = [sys.executable, "-m", "charlstm", "sample", "--model", "builtin", "--length", "1000000", "-q"]
    inherited = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    with subprocess.Popen(command, env=inherited | environ, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.read(10)
        status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
        process.terminate()
    assert int(status.split("Threads:")[1].split()[0]) == expected


def compiled_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.suffix in (".json", ".nbi", ".nbc")}


TRAIN_IN_PYTHON = """
import charlstm
from charlstm.config import Config, DataConfig, ModelConfig, TrainingConfig
training = TrainingConfig(epochs=1, batch_size=4, seq_len=16, device="cpu")
small = Config(ModelConfig(cell="rnn", hidden=8), training=training)
for _ in charlstm.train("little.txt", small, "library"):
    pass
"""


def test_numba_writes_to_the_cache_folder_and_not_to_the_package(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command and from Python. The cell is one for which little is compiled."""
    before = compiled_files(Path(package.__file__).parent)
    command = run_process(
        "train", corpus, *SMALL, "--cell", "rnn", "--epochs", 1, environ={"CHARLSTM_CACHE": str(tmp_path / "cache")}
    )
    assert command.code == 0, command.err
    environ = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    library = [sys.executable, "-c", TRAIN_IN_PYTHON]
    subprocess.run(library, env=environ | {"XDG_CACHE_HOME": str(tmp_path / "xdg")}, check=True)
    assert compiled_files(Path(package.__file__).parent) == before

    assert compiled_files(tmp_path / "xdg" / "charlstm" / "numba")
    monkeypatch.setenv("CHARLSTM_CACHE", str(tmp_path / "cache"))
    compiled = compiled_files(tmp_path / "cache" / "numba")
    assert compiled
    assert list_cache() == {str(path.relative_to(cache_folder())): path.stat().st_size for path in compiled}
    clear_cache()
    assert not compiled_files(tmp_path / "cache")
    assert not list((tmp_path / "cache" / "numba").iterdir())


@pytest.mark.parametrize("folder", ["chosen", "unwritable"])
def test_numba_cache_dir_of_the_user_is_kept_and_an_unwritable_folder_is_no_error(
    corpus: Path, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "unwritable").write_text("a file where the cache folder should be")
    before = compiled_files(Path(package.__file__).parent)
    environ = {"CHARLSTM_CACHE": str(tmp_path / "unwritable")}
    if folder == "chosen":
        environ["NUMBA_CACHE_DIR"] = str(tmp_path / "chosen")
    done = run_process("train", corpus, *SMALL, "--cell", "rnn", "--epochs", 1, environ=environ)
    assert done.code == 0, done.err
    assert bool(compiled_files(tmp_path / "chosen")) == (folder == "chosen")
    assert compiled_files(Path(package.__file__).parent) == before
