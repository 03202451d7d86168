"""Seconds from the start of a process to the end of `--help`, and to the first character of a sample.

    python benchmarks/startup.py [--rounds 15] [--before CHECKOUT] [--json]

Every round measures each command once, next to what no change to charlstm can undercut: Python alone, Python importing
typer, and Python importing NumPy and typer. Help may take 0.03 s more than importing typer. `--before` also measures
another checkout of charlstm in the same rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from charlstm.architecture import weight_shapes
from charlstm.config import Config, ModelConfig
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import CharVocabulary

CHECKOUT = Path(__file__).parent.parent


def write_model(path: Path) -> None:
    """Write a 2x512 LSTM over 65 characters, with random weights."""
    config = Config(model=ModelConfig(layers=2, hidden=512, embedding=128))
    vocabulary = CharVocabulary("\n" + "".join(chr(32 + i) for i in range(64)))
    random = np.random.default_rng(1)
    shapes = weight_shapes(config.model, vocabulary.size)
    weights = {name: 0.05 * random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    ModelFile(config, vocabulary, weights).save(path)


def time_to_output(command: list[str], checkout: Path, bytecode: str) -> float:
    """Return the seconds from the start of a process to the first byte that it writes.

    bytecode: a folder for what Python compiles, which an installed package has.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=checkout, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        elapsed = perf_counter() - start
        process.kill()
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--before", type=Path, help="another checkout of charlstm")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    checkouts = {"": CHECKOUT} | ({", before": arguments.before} if arguments.before else {})
    charlstm = [sys.executable, "-m", "charlstm"]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors"
        write_model(model)
        plain = {
            "python -c pass": [sys.executable, "-c", "print()"],
            "import typer": [sys.executable, "-c", "import typer; print()"],
            "import numpy, typer": [sys.executable, "-c", "import numpy, typer; print()"],
        }
        measured = {
            "charlstm --help": [*charlstm, "--help"],
            "charlstm train --help": [*charlstm, "train", "--help"],
            "charlstm sample, first character, 2x512": [
                *charlstm,
                "sample",
                "-m",
                str(model),
                "-l",
                "0",
                "--seed",
                "1",
            ],
        }
        commands = {name: (command, CHECKOUT) for name, command in plain.items()}
        for name, command in measured.items():
            commands |= {name + suffix: (command, checkout) for suffix, checkout in checkouts.items()}
        times: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(arguments.rounds + 1):
            for name, (command, checkout) in commands.items():
                elapsed = time_to_output(command, checkout, folder)
                if number:  # the first round fills the caches
                    times[name].append(elapsed)
    if arguments.json:
        print(json.dumps({name: {"median_seconds": median(t), "least_seconds": min(t)} for name, t in times.items()}))
        return
    print(f"{'':50}{'median':>8}{'least':>8}   seconds")
    for name, found in times.items():
        print(f"{name:50}{median(found):8.3f}{min(found):8.3f}")


if __name__ == "__main__":
    main()
