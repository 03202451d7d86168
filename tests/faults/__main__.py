"""The full fault tests. `make test-all` runs a part of them.

python -m tests.faults [--kills 200] [--files 20000] [--seed 1]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a process is forked only without threads

from tests.faults import kills, system_faults
from tests.faults.forged_files import ForgedFiles
from tests.faults.reference import OPTIONS, Reference
from tests.support.texts import ENGLISH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()

    def report(case: str, result: object) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {case}: {result}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # accessible to the ordinary user of one of the tests
        (Path(folder) / "runs").mkdir()
        reference = Reference(Path(folder) / "runs")
        report("kill -9", kills.campaign(reference, arguments.kills, arguments.seed))
        for case, failed in campaign(reference, Path(folder)):
            report(case, failed)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        report("corrupted and forged files", ForgedFiles(Path(folder)).campaign(arguments.files, arguments.seed))


def campaign(reference: Reference, folder: Path) -> Iterator[tuple[str, object]]:
    """Yield the name and result of every other fault. Raises AssertionError if a run ends unlike one without faults."""
    (folder / "short").mkdir()
    short = Reference(folder / "short", (*OPTIONS, "--epochs", "1", "--save-every", "0s"))
    calls = system_faults.count_writing_calls(short)
    yield (
        f"the n-th of {calls} calls that write fails, each n; trainings ended",
        system_faults.fail_disk(short, range(1, calls + 1)),
    )
    yield "files limited to 0-24 kB; trainings ended", system_faults.limit_file_size(reference, range(0, 24_000, 1000))
    yield "disks of 8-128 kB; trainings ended", system_faults.fill_disks(reference, range(8, 129, 8))
    system_faults.signal_during_validation(reference)
    system_faults.make_folder_read_only(reference)
    system_faults.set_clock_back(reference)
    yield "SIGTERM in validation, read-only folder, clock set back", "passed"
    yield "memory", system_faults.limit_memory(folder / "memory", ENGLISH[:160_000]).err.splitlines()[-1]


if __name__ == "__main__":
    main()
