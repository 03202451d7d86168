"""Measure training, evaluation and sampling on an idle machine and next to a program that keeps one core busy.

    python benchmarks/busy.py corpus.txt [--rounds 7] [--seconds 3] [--before CHECKOUT] [--only NAME ...]

Prints characters/s, medians of alternating runs: on one core of the idle machine, on all cores of it, and on all cores
next to a loop of normal priority that was started in a session of its own, as from another terminal. With `--before`,
the last two also for another checkout of charlstm. Close other programs first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from subprocess import PIPE
from tempfile import TemporaryDirectory
from time import perf_counter

CASES = {
    "lstm 1x384": "model.hidden=384",
    "lstm 1x512": "model.hidden=512 training.lr=5e-3",
    "small": "preset",
    "medium": "preset",
    "gru": "preset",
    "bidirectional": "preset",
    "evaluation, lstm 1x384": "model.hidden=384",
    "sample": "command",
    "short training": "command",
}

COMMANDS = {
    "sample": ["train {corpus} --hidden 384 --max-time 3s --seed 1", "sample --length 3000 --seed 1"],
    "short training": ["train {corpus} --hidden 384 --max-time 12s --seed 1"],
}
"""Whole commands. The last one is measured, by the characters that it writes or reads."""

BUSY_LOOP = """
import os
if hasattr(os, "sched_setaffinity"):  # one that may move makes room for two threads now and then
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
parent = os.getppid()
while os.getppid() == parent:  # it ends with the benchmark, however that ends
    pass
"""

PROGRAM = """
import sys
from dataclasses import replace
from time import perf_counter
name, settings, path, seconds = *sys.argv[1:4], float(sys.argv[4])
try:
    from charlstm.runtime import retain_freed_memory
except ImportError:  # version 0.1.0-alpha
    from charlstm.runtime import configure_process as retain_freed_memory
retain_freed_memory()
from charlstm.config import DataConfig
from charlstm.data.corpus import read_corpus
from charlstm.evaluation.evaluate import evaluate
from charlstm.presets import load_preset
from charlstm.settings import Setting, resolve
from charlstm.training.trainer import Trainer

if settings == "preset":
    values = load_preset(name)
else:
    pairs = [pair.split("=") for pair in settings.split()]
    values = {key: Setting(float(value), "benchmark") for key, value in pairs}
config = resolve(values)
config = replace(config, training=replace(config.training, max_time=0.0, device="cpu"))
trainer = Trainer(read_corpus(DataConfig(corpus=(path,))), config)
if name.startswith("evaluation"):
    ids, done = trainer.tokens.part("val"), 0
    evaluate(trainer.model, ids.span(0, 5000), 0, 5000)
    began = perf_counter()
    while perf_counter() - began < seconds:
        evaluate(trainer.model, ids, 0, len(ids))
        done += len(ids)
else:
    for _ in range(5):  # the first steps compile and map memory
        trainer.step(1e-4)
    began, done = perf_counter(), 0
    while perf_counter() - began < seconds:
        trainer.step(1e-4)
        done += trainer.batches.batch_size * trainer.batches.seq_len
print(done / (perf_counter() - began))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    here = Path(__file__).parents[1]
    columns = [("one core, idle", here, "1", False), ("idle", here, "", False), ("busy", here, "", True)]
    if arguments.before:
        columns += [("before, idle", arguments.before, "", False), ("before, busy", arguments.before, "", True)]
    print("| characters/s | " + " | ".join(column[0] for column in columns) + " | busy / one core | busy / idle |")
    print("| --- " * (len(columns) + 3) + "|")
    for name in arguments.only:
        speeds: dict[str, list[float]] = {column[0]: [] for column in columns}
        for _ in range(arguments.rounds):
            for column, checkout, threads, busy in columns:
                with busy_core(busy):
                    speeds[column].append(measure(name, checkout, threads, arguments.corpus, arguments.seconds))
        medians = [median(found) for found in speeds.values()]
        one, idle, busy_speed = medians[:3]
        cells = [f"{value:,.0f}" for value in medians] + [f"{busy_speed / one:.2f}", f"{busy_speed / idle:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def measure(name: str, checkout: Path, threads: str, corpus: Path, seconds: float) -> float:
    """Return the characters/s that a process of its own reaches; `threads` is OMP_NUM_THREADS, "" for the default."""
    environ = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environ |= {"PYTHONPATH": str(checkout)} | ({"OMP_NUM_THREADS": threads} if threads else {})
    if name in COMMANDS:
        return measure_command(name, environ, corpus)
    command = [sys.executable, "-c", PROGRAM, name, CASES[name], str(corpus), str(seconds)]
    return float(subprocess.run(command, env=environ, stdout=PIPE, check=True).stdout)


def measure_command(name: str, environ: dict[str, str], corpus: Path) -> float:
    """Return the characters/s of a whole command, from its start to its exit."""
    with TemporaryDirectory() as folder:  # and not in this checkout, which Python would import first
        for command in COMMANDS[name]:
            arguments = command.format(corpus=corpus.resolve()).split()
            began = perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "charlstm", *arguments], env=environ, cwd=folder, capture_output=True, check=True
            )
            seconds = perf_counter() - began
        if name == "sample":
            return len(done.stdout.decode()) / seconds
        metrics = next(Path(folder).glob("runs/*/metrics.jsonl")).read_text("utf-8")
        return float(json.loads(metrics.splitlines()[-1])["characters"]) / seconds


@contextmanager
def busy_core(busy: bool) -> Iterator[None]:
    """Keep one core busy within the context, if `busy`."""
    command = [sys.executable, "-c", BUSY_LOOP]
    loop = subprocess.Popen(command, start_new_session=True) if busy else None
    try:
        yield
    finally:
        if loop:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    main()
