"""Seconds from the start of a process to the end of `--help`, of samples and of `eval`, and to the first character.

    python benchmarks/startup.py [--rounds 15] [--before CHECKOUT] [--json]

Every round measures each command once, next to what no change to charlstm can undercut: Python alone, and Python
importing typer, NumPy and typer, or torch. Help may take 0.03 s more than importing typer. `--before` also measures
another checkout of charlstm in the same rounds. The first round fills the caches, also with what numba compiles.
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


SYMBOLS = "\n" + "".join(chr(32 + i) for i in range(64))


def write_model(path: Path, hidden: int) -> None:
    """Write an LSTM of two layers over `SYMBOLS`, with random weights."""
    config = Config(model=ModelConfig(layers=2, hidden=hidden, embedding=128))
    vocabulary = CharVocabulary(SYMBOLS)
    random = np.random.default_rng(1)
    shapes = weight_shapes(config.model, vocabulary.size)
    weights = {name: 0.05 * random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    ModelFile(config, vocabulary, weights).save(path)


def measure(command: list[str], checkout: Path, bytecode: str, *, whole: bool) -> float:
    """Return the seconds from the start of a process to the first byte that it writes, or to its end if `whole`.

    bytecode: a folder for what Python compiles, which an installed package has.
    """
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=checkout, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.read(-1 if whole else 1)
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
        models = {hidden: f"{folder}/{hidden}.safetensors" for hidden in (512, 1024)}
        for hidden, path in models.items():
            write_model(Path(path), hidden)
        text = Path(folder) / "text.txt"
        text.write_text("".join(np.random.default_rng(1).choice(list(SYMBOLS), 5000)), "utf-8")
        python, sample = [sys.executable, "-c"], [*charlstm, "sample", "--seed", "1", "-m"]
        commands = {
            name: (command, CHECKOUT)
            for name, command in {
                "python -c pass": [*python, "print()"],
                "import typer": [*python, "import typer; print()"],
                "import numpy, typer": [*python, "import numpy, typer; print()"],
                "import torch": [*python, "import torch; print()"],
            }.items()
        }
        measured = {
            "charlstm --help": [*charlstm, "--help"],
            "charlstm train --help": [*charlstm, "train", "--help"],
            "charlstm sample, first character, 2x512": [*sample, models[512], "-l", "0"],
            "charlstm sample --length 500, 2x512": [*sample, models[512], "-l", "500"],
            "charlstm sample --length 500, 2x1024": [*sample, models[1024], "-l", "500"],
            "charlstm sample --length 3000, 2x512": [*sample, models[512], "-l", "3000"],
            "charlstm eval, 5,000 characters, 2x512": [*charlstm, "eval", "-m", models[512], str(text)],
        }
        for name, command in measured.items():
            commands |= {name + suffix: (command, checkout) for suffix, checkout in checkouts.items()}
        times: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(arguments.rounds + 1):
            for name, (command, checkout) in commands.items():
                elapsed = measure(command, checkout, folder, whole="first character" not in name)
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
