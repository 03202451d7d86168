"""The long campaign, with its figures.

python -m tests.faults [--kills 200] [--files 20000] [--seed 1]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # forks are made of processes without threads

from tests.conftest import ENGLISH
from tests.faults import faults, kills
from tests.faults.hostile import Strangers
from tests.faults.scene import SETTINGS, Scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()

    def say(what: str, result: object) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {what}: {result}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # an ordinary user has to get to what lies inside
        (Path(folder) / "runs").mkdir()
        scene = Scene(Path(folder) / "runs")
        say("kill -9", kills.campaign(scene, arguments.kills, arguments.seed))
        for what, failed in campaign(scene, Path(folder)):
            say(what, failed)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        say("files from strangers", Strangers(Path(folder)).campaign(arguments.files, arguments.seed))


def campaign(scene: Scene, folder: Path) -> Iterator[tuple[str, object]]:
    """What else can go wrong; each raises AssertionError where a run does not end as one that nothing happened to."""
    (folder / "short").mkdir()
    short = Scene(folder / "short", (*SETTINGS, "--epochs", "1", "--save-every", "0s"))
    calls = faults.calls_that_write(short)
    yield (
        f"the n-th of {calls} calls that write fails, each n; trainings ended",
        faults.failing_disk(short, range(1, calls + 1)),
    )
    yield "files limited to 0-24 kB; trainings ended", faults.files_too_large(scene, range(0, 24_000, 1000))
    yield "disks of 8-128 kB; trainings ended", faults.full_disks(scene, range(8, 129, 8))
    faults.signal_in_validation(scene)
    faults.read_only_folder(scene)
    faults.clock_set_back(scene)
    yield "SIGTERM in validation, read-only folder, clock set back", "as they should"
    yield "memory", faults.too_little_memory(folder / "memory", ENGLISH[:160_000]).err.splitlines()[-1]


if __name__ == "__main__":
    main()
