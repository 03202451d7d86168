"""Seconds from the start of the process: to the end of `--help`, and to the first character of a sample.

    python benchmarks/startup.py [--rounds 15] [--json]

Beside them, in turn, what no change to charlstm can undercut: Python alone, and Python importing NumPy and typer.
"""

from __future__ import annotations

import argparse
import json
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


def write_model(path: Path) -> None:
    """A 2x512 LSTM over 65 characters, with random weights."""
    config = Config(model=ModelConfig(layers=2, hidden=512, embedding=128))
    vocabulary = CharVocabulary("\n" + "".join(chr(32 + i) for i in range(64)))
    random = np.random.default_rng(1)
    sizes = weight_shapes(config.model, vocabulary.size)
    ModelFile(config, vocabulary, {k: 0.05 * random.standard_normal(s, np.float32) for k, s in sizes.items()}).save(
        path
    )


def seconds(command: list[str]) -> float:
    """From the start of a process to the first byte it writes (its end, if it writes none)."""
    begun = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        elapsed = perf_counter() - begun
        process.kill()
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    python, charlstm = sys.executable, str(Path(sys.executable).parent / "charlstm")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors"
        write_model(model)
        commands = {
            "python -c pass": [python, "-c", "print()"],
            "import numpy, typer": [python, "-c", "import numpy, typer; print()"],
            "charlstm --help": [charlstm, "--help"],
            "charlstm sample, first character, 2x512": [charlstm, "sample", "-m", str(model), "-l", "0", "--seed", "1"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(arguments.rounds + 1):
            for name, command in commands.items():
                elapsed = seconds(command)
                if turn:
                    times[name].append(elapsed)
    if arguments.json:
        print(json.dumps({name: {"median_seconds": median(t), "least_seconds": min(t)} for name, t in times.items()}))
        return
    print(f"{'':42}{'median':>8}{'least':>8}   seconds")
    for name, found in times.items():
        print(f"{name:42}{median(found):8.3f}{min(found):8.3f}")


if __name__ == "__main__":
    main()
