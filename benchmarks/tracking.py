"""How long it takes to read and draw the metrics of many runs, and what writing for TensorBoard costs.

python benchmarks/tracking.py [--runs 10] [--lines 10000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from charlstm.config import Config, ModelConfig
from charlstm.storage.locate import LAST, METRICS
from charlstm.storage.metrics import MetricsReader
from charlstm.storage.model import ModelFile
from charlstm.tracking.tensorboard import EventFile
from charlstm.vocabulary import CharVocabulary

ROUNDS = 5


def write_run(folder: Path, lines: int) -> None:
    """Write a run that has logged this many lines."""
    folder.mkdir(parents=True)
    ModelFile(Config(ModelConfig()), CharVocabulary("abc"), {}).save(folder / LAST)
    with (folder / METRICS).open("w") as file:
        for number in range(1, lines + 1):
            file.write(json.dumps(make_line(number)) + "\n")


def make_line(number: int) -> dict[str, float]:
    """Return a line as training writes it."""
    loss = 1.4 + 2 / number
    place = {"step": 50 * number, "epoch": number // 100, "passes": number / 100, "characters": 204_800 * number}
    time = {"seconds": float(number), "training_seconds": 0.9 * number, "fraction_done": 0.5, "world_size": 1}
    values = {"chars_per_second": 200_000, "loss_nats": loss, "learning_rate": 1e-3, "gradient_norm": 0.7}
    return place | time | values | ({"validation_loss_nats": loss} if number % 10 == 0 else {})


def time_command(arguments: Sequence[str]) -> float:
    """Return the seconds of a command line, the fastest of some rounds."""
    times = []
    for _ in range(ROUNDS):
        began = perf_counter()
        subprocess.run([sys.executable, "-m", "charlstm", *arguments], check=True, capture_output=True)
        times.append(perf_counter() - began)
    return min(times)


def time_event_file(run: Path, folder: Path) -> float:
    """Return the seconds for appending a line to an event file, in the middle of a run."""
    reader = MetricsReader(run / METRICS)
    reader.update()
    file = EventFile(folder, Config())
    entries = reader.entries
    file.rewrite(entries[:10])
    with (run / METRICS).open("a") as metrics:
        file.follow(reader)
        began = perf_counter()
        for number in range(1000):
            metrics.write(json.dumps(make_line(len(entries) + number)) + "\n")
            metrics.flush()
            file.follow(reader)
    return (perf_counter() - began) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--lines", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        runs = [Path(name) / "runs" / f"run-{number}" for number in range(options.runs)]
        for run in runs:
            write_run(run, options.lines)
        paths = list(map(str, runs))
        print(f"{options.runs} runs x {options.lines:,} lines; the fastest of {ROUNDS}")
        print(f"plot          {time_command(['plot', *paths]):7.3f} s")
        print(f"plot -o svg   {time_command(['plot', *paths, '-o', f'{name}/out.svg']):7.3f} s")
        print(f"runs          {time_command(['runs', f'{name}/runs']):7.3f} s")
        print(f"--help        {time_command(['--help']):7.3f} s")
        print(
            f"event file    {1e6 * time_event_file(runs[0], Path(name) / 'events'):7.0f} µs per line, of every 50 steps"
        )


if __name__ == "__main__":
    main()
