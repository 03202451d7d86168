"""Compare two sets of options in pairs: the same seeds, the same text, one thread each.

    python benchmarks/pairs.py TEXT --with OPTIONS [--without OPTIONS] [--common OPTIONS] [--seeds 5] [--jobs 2]

For example: `pairs.py t90.txt --with '--set model.bigrams=4096' --common '--hidden 384 --epochs 5'`. Each line has the
losses of a seed in nats per character, without and with the options, by `charlstm eval` on the whole validation part.
Then their means, the mean difference with its standard deviation over the seeds, and how many characters/s the runs
trained with the options, relative to those without. Finished runs in the folder are not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from statistics import mean, median, stdev
from typing import NamedTuple


class Outcome(NamedTuple):
    loss_nats: float
    chars_per_second: float  # the median over the validations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--folder", type=Path, default=Path("pairs"))
    parser.add_argument("--with", dest="added", required=True)
    parser.add_argument("--without", dest="base", default="")
    parser.add_argument("--common", default="", help="options of both sides")
    arguments = parser.parse_args()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        pairs = [
            [
                pool.submit(train, arguments.text, shlex.split(f"{arguments.common} {side}"), seed, arguments.folder)
                for side in (arguments.base, arguments.added)
            ]
            for seed in range(1, arguments.seeds + 1)
        ]
        print("seed  without    with  difference")
        found: list[tuple[Outcome, Outcome]] = []
        for seed, (base, added) in enumerate(pairs, 1):
            found.append((base.result(), added.result()))
            without, with_ = (outcome.loss_nats for outcome in found[-1])
            print(f"{seed:4}{without:9.4f}{with_:8.4f}{with_ - without:+12.4f}", flush=True)
    differences = [with_.loss_nats - without.loss_nats for without, with_ in found]
    means = [mean(outcome.loss_nats for outcome in side) for side in zip(*found, strict=True)]
    spread = f", standard deviation {stdev(differences):.4f}" if len(differences) > 1 else ""
    speed = median(with_.chars_per_second / without.chars_per_second for without, with_ in found)
    print(f"mean{means[0]:9.4f}{means[1]:8.4f}{mean(differences):+12.4f}{spread}; characters/s {speed:.2f}")


def train(text: Path, options: list[str], seed: int, folder: Path) -> Outcome:
    """Return the outcome of a run with these options and this seed, training it if needed."""
    key = sha256(repr((text.resolve(), options, seed)).encode()).hexdigest()[:16]
    run, result = folder / key, folder / f"{key}.json"
    if not result.exists():
        charlstm("train", text, "-o", run, "--seed", seed, "--no-samples", "--overwrite", *options)
        result.write_bytes(charlstm("eval", "-m", run, "--json"))
    rows = map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines())
    return Outcome(json.loads(result.read_bytes())["loss_nats"], median(row["chars_per_second"] for row in rows))


def charlstm(*arguments: object) -> bytes:
    """Run a command line on one thread and return what it writes to stdout."""
    command = [sys.executable, "-m", "charlstm", *map(str, arguments), "--quiet"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    main()
