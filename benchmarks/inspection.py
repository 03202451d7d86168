"""What `charlstm inspect` finds in models of a text in which there is something to find.

    python benchmarks/inspection.py [--seeds 1 2 3 4 5] [--time 2m] [--json]

The text has lines that are wrapped before column 70, quotations and parentheses of 5 to 60 characters. For each seed
an LSTM of 128 units is trained on it, and inspected on 10,000 other characters of the same kind: the best unit for the
column, for being inside quotes and inside parentheses, what fixing the unit of the quotes costs at closing quotes and
elsewhere, and the median length of quotations in samples with that unit clamped on and off, at two standard deviations
from its mean, next to samples as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from math import erfc, sqrt
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

LENGTH, TEST_LENGTH = 600_000, 10_000
LEXICON = 20
"""Words of the language: few, so that a model of 128 units soon attends to the lines and marks."""

SAMPLES, SAMPLE_LENGTH = 100, 400

DETECTORS = ("column", "inside straight quotes", "inside parentheses")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--time", default="2m")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            result = measure(Path(folder), seed, arguments.time)
            print(json.dumps(result) if arguments.json else format_result(result), flush=True)


def measure(folder: Path, seed: int, time: str) -> dict[str, Any]:
    """Train on the text of a seed and inspect the model."""
    corpus, test, run = folder / f"{seed}.txt", folder / f"test{seed}.txt", folder / f"run{seed}"
    text = plant(LENGTH + TEST_LENGTH, seed)
    corpus.write_text(text[:LENGTH])
    test.write_text(text[LENGTH:])
    run_command("train", corpus, "-o", run, "--layers", 1, "--hidden", 128, "--max-time", time, "--seed", seed, "-q")
    found = json.loads(run_command("inspect", "-m", run, test, "--ablate", "--json"))
    rows = {row["detector"]: row for row in found["findings"]}
    result: dict[str, Any] = {
        "seed": seed,
        "loss_nats": json.loads(run_command("eval", "-m", run, "--json"))["loss_nats"],
    }
    for name in DETECTORS:
        result[name] = {key: rows[name][key] for key in ("unit", "quantity", "measure", "score", "sign", "noise")}
    unit = rows["inside straight quotes"]["unit"]
    result["ablation"] = next(each for each in found["ablations"] if each["unit"] == unit)
    plain = quotation_lengths(run, ())
    result["quotation_lengths"] = {"plain": median(plain)}
    on = quote_sign(run, test, unit)
    for name, sign in (("on", on), ("off", "-" if on == "+" else "+")):
        clamped = quotation_lengths(run, ("--clamp", f"{unit}={sign}2"))
        result["quotation_lengths"] |= {name: median(clamped), f"p_{name}": mann_whitney(plain, clamped)}
    return result


def quote_sign(run: Path, test: Path, unit: str) -> str:
    """Return the sign of the correlation of the cell state of a unit with being inside quotes."""
    found = json.loads(run_command("inspect", "-m", run, test, "--unit", unit, "--json"))
    inside = np.zeros(len(found["content"]))
    for match in re.finditer(r'(?<=\s)"[^"]*', found["content"]):
        inside[match.start() : match.end()] = 1
    return "+" if np.corrcoef(inside, found["values"])[0, 1] > 0 else "-"


def quotation_lengths(run: Path, options: tuple[str, ...]) -> list[int]:
    """Return the number of characters after the opening quote of each sample up to the closing one, or to the end."""
    output = run_command(
        "sample",
        "-m",
        run,
        "-n",
        SAMPLES,
        "-l",
        SAMPLE_LENGTH,
        "--seed",
        1,
        "-p",
        'the "',
        "--no-echo",
        "--json",
        *options,
    )
    texts = [json.loads(line)["text"] for line in output.splitlines()]
    return [len(text.partition('"')[0]) for text in texts]


def mann_whitney(first: list[int], second: list[int]) -> float:
    """Return the two-sided p of Mann and Whitney's test (1947), by its normal approximation with ties."""
    both = np.array(first + second)
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = len(first), len(second)
    u = ranks[:n].sum() - n * (n + 1) / 2
    ties = (counts**3 - counts).sum() / ((n + m) * (n + m - 1))
    deviation = sqrt(n * m / 12 * (n + m + 1 - ties))
    return erfc(abs(u - n * m / 2) / deviation / sqrt(2))


def plant(length: int, seed: int) -> str:
    """Return words in lines that are wrapped before column 70, some of them quoted and some in parentheses."""
    random = np.random.default_rng(seed)
    letters = list("etaoinshrdlu")
    lexicon = ["".join(random.choice(letters, random.integers(1, 7))) for _ in range(LEXICON)]

    def words(count: int) -> str:
        return " ".join(lexicon[k] for k in random.integers(0, LEXICON, count))

    pieces: list[str] = []
    size = 0
    while size < length + 100:
        inner = words(30)[: random.integers(5, 61)].strip()
        pieces += [words(int(random.integers(2, 12))), (f'"{inner}"', f"({inner})")[random.integers(2)]]
        size += len(pieces[-1]) + len(pieces[-2])
    return re.sub(r"(.{1,69}) ", r"\1\n", " ".join(pieces))[:length]


def run_command(*arguments: object) -> str:
    command = [sys.executable, "-m", "charlstm", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def format_result(result: dict[str, Any]) -> str:
    found = ", ".join(
        f"{name} {result[name]['unit']} {result[name]['measure']} {result[name]['score']:.3f}" for name in DETECTORS
    )
    effects = result["ablation"]["effects"]
    closing, elsewhere = effects["closing quotes"], effects["elsewhere"]
    lengths = result["quotation_lengths"]
    return (
        f"seed {result['seed']}: loss {result['loss_nats']:.3f}; {found}; fixed: closing quotes "
        f"{closing['change_nats']:+.3f} (> {closing['exceeded']} of {result['ablation']['random_units']}), elsewhere "
        f"{elsewhere['change_nats']:+.4f}; quotations {lengths['plain']:g} characters, clamped on {lengths['on']:g} "
        f"(p {lengths['p_on']:.1g}), off {lengths['off']:g} (p {lengths['p_off']:.1g})"
    )


if __name__ == "__main__":
    main()
