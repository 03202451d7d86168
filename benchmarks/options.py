"""Measure what each optional setting is worth: one line per option, several seeds, one model and one text.

    python benchmarks/options.py t90.txt [--seeds 1 2 3] [--only sgd zoneout] [--folder options] [--jobs 2]

The model is an LSTM of 256 units with embedding 64, trained for eight epochs with 16 streams of 64 characters, each of
which reads a part of the text in order; options between layers are compared with two layers. The loss is that of the
last tenth of the text, read once with the state carried (`charlstm eval`). Finished runs in the folder are not trained
again, so an interrupted benchmark continues.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

COMMON = (
    *("--hidden", "256", "--lr", "8e-3", "--batch-size", "16", "--seq-len", "64", "--epochs", "8"),
    *("--set", "training.validate_every=882", "--set", "training.segment_len=0"),
    *("--device", "cpu", "--no-samples", "--overwrite"),
)

OPTIONS: dict[str, tuple[str, ...]] = {
    "base": (),
    "segments": ("--set", "training.segment_len=1024"),
    "l1": ("--set", "regularization.l1=1e-6"),
    "label smoothing": ("--set", "regularization.label_smoothing=0.1"),
    "zoneout": ("--set", "model.zoneout=0.1"),
    "softsign": ("--activation", "softsign"),
    "rmsprop": (
        *("--optimizer", "rmsprop", "--lr", "2e-3", "--set", "training.beta2=0.95"),
        *("--set", "training.weight_decay=0"),
    ),
    "adagrad": ("--optimizer", "adagrad", "--lr", "0.05", "--set", "training.weight_decay=0"),
    "sgd": ("--optimizer", "sgd", "--lr", "0.5", "--set", "training.weight_decay=0"),
    "nt-asgd": (
        *("--optimizer", "nt-asgd", "--lr", "10", "--schedule", "constant", "--set", "training.clip=0.25"),
        *("--set", "training.weight_decay=1.2e-6"),
    ),
    "no averaging": ("--ema", "0"),
    "dropout": ("--dropout", "0.2"),
    "dropout per window": ("--dropout", "0.2", "--set", "regularization.dropout_mask=window"),
    "weight dropout": ("--set", "regularization.weight_dropout=0.2"),
    "two layers": ("--layers", "2"),
    "residual": ("--layers", "2", "--set", "model.between=residual"),
    "highway": ("--layers", "2", "--set", "model.between=highway"),
}
"""Options and the settings that recipes use with them. RMSprop's are char-rnn's; NT-ASGD's clipping and weight decay
are those of Merity et al. 2017."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--folder", type=Path, default=Path("options"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread")
    arguments = parser.parse_args()
    print("| option | added to `charlstm train` | nats/char, mean | standard deviation | seeds |")
    print("| --- | --- | --- | --- | --- |")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {
            name: [pool.submit(measure, arguments.corpus, name, seed, arguments.folder) for seed in arguments.seeds]
            for name in arguments.only
        }
        for name, losses in runs.items():
            print(format_row(name, [loss.result() for loss in losses]), flush=True)


def measure(corpus: Path, name: str, seed: int, folder: Path) -> float:
    """Return the validation loss in nats per character of an option with a seed, training the run if needed."""
    run = folder / f"{name.replace(' ', '-')}-{seed}"
    result = run.with_suffix(".json")
    if not result.exists():
        charlstm("train", corpus, "-o", run, "--seed", seed, *COMMON, *OPTIONS[name])
        result.write_bytes(charlstm("eval", "-m", run, "--json"))
    loss: float = json.loads(result.read_bytes())["loss_nats"]
    return loss


def charlstm(*arguments: object) -> bytes:
    """Run a command line on one thread and return what it writes to stdout."""
    command = [sys.executable, "-m", "charlstm", *map(str, arguments), "--quiet"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True).stdout


def format_row(name: str, losses: Iterable[float]) -> str:
    """Return a Markdown table row."""
    losses = list(losses)
    spread = f"{stdev(losses):.4f}" if len(losses) > 1 else ""
    return f"| {name} | `{' '.join(OPTIONS[name])}` | {mean(losses):.4f} | {spread} | {len(losses)} |"


if __name__ == "__main__":
    main()
