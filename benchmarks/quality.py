"""Quality reached in a given time: `charlstm train CORPUS --max-time T`, then `charlstm eval`, per time and seed.

    python benchmarks/quality.py CORPUS [--times 1m,5m] [--seeds 1,2,3] [--dynamic] [--json] [-- TRAIN OPTION ...]

Reports the loss on the whole validation part (the last tenth of the corpus), in nats per character; --dynamic adds
the loss of `eval --dynamic`. Options after -- go to `charlstm train`, for example -- --preset small. Nothing else
should run on the machine meanwhile. Runs are kept under --runs, one folder each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any


def charlstm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command. Raises CalledProcessError if it fails."""
    command = [sys.executable, "-m", "charlstm", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def measure(corpus: str, time: str, seed: int, options: list[str], runs: Path, dynamic: bool) -> dict[str, Any]:
    """Train one run and return its metrics."""
    folder = str(runs / f"{Path(corpus).stem}-{time}-{seed}")
    began = perf_counter()
    limit = ["--max-time", time] if time != "-" else []
    done = charlstm("train", corpus, "-o", folder, "--overwrite", "--no-samples", *limit, "--seed", str(seed), *options)
    seconds = perf_counter() - began
    metrics = json.loads(charlstm("eval", "-m", folder, "--json", *(["--dynamic"] if dynamic else [])).stdout)
    about = [line.split(maxsplit=1)[1] for line in done.stderr.splitlines() if line.startswith(("settings", "model "))]
    return {
        "time": time,
        "seed": seed,
        "seconds": round(seconds),
        "loss_nats": metrics["loss_nats"],
        "bpc": metrics["bpc"],
        "dynamic_loss_nats": metrics.get("dynamic_loss_nats"),
        "about": "; ".join(about),
        "command": " ".join(["charlstm train", Path(corpus).name, *limit, "--seed", str(seed), *options]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--times", default="1m", help="such as 1m,5m; - is no limit, for a preset (default 1m)")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    parser.add_argument("--json", action="store_true")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, options = parser.parse_args(sys.argv[1:cut]), sys.argv[cut + 1 :]
    for time in arguments.times.split(","):
        rows = []
        for seed in map(int, arguments.seeds.split(",")):
            row = measure(arguments.corpus, time, seed, options, arguments.runs, arguments.dynamic)
            rows.append(row)
            if arguments.json:
                print(json.dumps(row), flush=True)
            else:
                dynamic = f", dynamic {row['dynamic_loss_nats']:.4f}" if arguments.dynamic else ""
                print(f"{row['command']}\n    {row['about']}", flush=True)
                print(
                    f"    {row['loss_nats']:.4f} nats/char, {row['bpc']:.4f} bpc{dynamic}, {row['seconds']} s",
                    flush=True,
                )
        if len(rows) > 1 and not arguments.json:
            losses = [row["loss_nats"] for row in rows]
            print(f"{time}: mean {mean(losses):.4f}, from {min(losses):.4f} to {max(losses):.4f}", flush=True)


if __name__ == "__main__":
    main()
