"""Many `charlstm sample` processes at once on one model: do they write what one alone writes, in what memory?

    python benchmarks/load.py [--processes 32] [--length 500] [--json]

RSS counts every page that a process has mapped; PSS divides a shared page among its processes. Both are peaks.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from startup import write_model


def command(model: Path, length: int, seed: int) -> list[str]:
    return [sys.executable, "-m", "charlstm", "sample", "-m", str(model), "-l", str(length), "--seed", str(seed)]


def memory(process: int) -> dict[str, int]:
    """Return RSS and PSS of a process, in bytes; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    fields = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
    return {name: fields[name] for name in ("Rss", "Pss") if name in fields}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=32)
    parser.add_argument("--length", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors"
        write_model(model, 512)
        alone = [
            subprocess.check_output(command(model, arguments.length, seed), stderr=subprocess.DEVNULL)
            for seed in (0, 1)
        ]
        start = time.monotonic()
        running = [
            subprocess.Popen(
                command(model, arguments.length, seed % 2), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            for seed in range(arguments.processes)
        ]
        peak: dict[str, int] = {"Rss": 0, "Pss": 0}
        while any(process.poll() is None for process in running):
            for process in running:
                for name, size in memory(process.pid).items():
                    peak[name] = max(peak[name], size)
            time.sleep(0.02)
        seconds = time.monotonic() - start
        correct = sum(process.communicate()[0] == alone[seed % 2] for seed, process in enumerate(running))
        size = model.stat().st_size
    results = {
        "processes": arguments.processes,
        "correct": correct,
        "seconds": round(seconds, 2),
        "model_bytes": size,
        "peak_rss_bytes": peak["Rss"],
        "peak_pss_bytes": peak["Pss"],
    }
    if arguments.json:
        print(json.dumps(results))
        return
    print(f"{correct} of {arguments.processes} processes wrote the same {arguments.length} characters as a single one")
    print(f"in {seconds:.1f} s; the model has {size / 1e6:.1f} MB")
    print(f"peak per process: RSS {peak['Rss'] / 1e6:.1f} MB, PSS {peak['Pss'] / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
