"""How a process that trains uses the machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from charlstm.runtime import SPIN_COUNT, limit_spinning


@pytest.mark.parametrize(
    ("already", "expected"),
    [({}, SPIN_COUNT), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_give_up_their_core_unless_the_user_said_how_they_wait(
    already: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in already.items():
        monkeypatch.setenv(name, value)
    limit_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


FAULTS = """
from charlstm.runtime import retain_freed_memory
import resource, numpy as np
retain_freed_memory()
np.ones(4_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(4_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc whose habit is changed")
@pytest.mark.parametrize(("environ", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_freed_memory_is_used_again_unless_the_user_said_otherwise(environ: dict[str, str], kept: bool) -> None:
    command = [sys.executable, "-c", FAULTS]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    faults = int(subprocess.run(command, env=inherited | environ, capture_output=True, check=True).stdout)
    assert (faults < 1000) == kept, "a fault is a page cleared and mapped anew; an array of 32 MB has 7,800"
