"""Which of two texts does a line come from? `charlstm score` with a model of each text, next to character 5-grams.

    python benchmarks/attribution.py A.txt B.txt [--time 2m] [--document line] [--seeds 1 2 3] [--json]

The last tenth of each text is held out; its lines of 20 to 80 characters, as many of the one text as of the other,
are mixed. For each seed a model of each text is trained on the rest for --time and the lines are classified by
`charlstm score --by line -m a=... -m b=...`. The n-gram models are counted on the same rest, line by line, and
interpolated by the rule of Witten and Bell (1991). The share of lines that are attributed correctly is printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from math import log
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

ORDER = 5
HELD_OUT = 0.1
SHORTEST, LONGEST = 20, 80
START, END = "\x02", "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs=2)
    parser.add_argument("--time", default="2m")
    parser.add_argument("--document", default="line", choices=["line", "stream"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    known, held_out = zip(*map(divide, arguments.texts), strict=True)
    lines = choose_lines(held_out)
    ngrams = score_ngrams(known, lines)
    for seed in arguments.seeds:
        network = score_networks(known, lines, seed, arguments.time, arguments.document)
        result = {
            "lines": len(lines),
            "seed": seed,
            "score_percent": round(100 * network, 2),
            f"{ORDER}_gram_percent": round(100 * ngrams, 2),
        }
        print(json.dumps(result) if arguments.json else "  ".join(f"{k} {v}" for k, v in result.items()), flush=True)


def divide(path: Path) -> tuple[list[str], list[str]]:
    """Return the lines of the first nine tenths of a text, and those of the last."""
    lines = path.read_text("utf-8").splitlines()
    place = round(len(lines) * (1 - HELD_OUT))
    return lines[:place], lines[place:]


def choose_lines(held_out: tuple[list[str], ...]) -> list[tuple[int, str]]:
    """Return the lines to attribute with the number of the text that each comes from, mixed."""
    candidates = [[line for line in lines if SHORTEST <= len(line) <= LONGEST] for lines in held_out]
    random = Random(1)
    count = min(map(len, candidates))
    chosen = [(label, line) for label, lines in enumerate(candidates) for line in random.sample(lines, count)]
    random.shuffle(chosen)
    return chosen


def score_ngrams(known: tuple[list[str], ...], lines: list[tuple[int, str]]) -> float:
    """Return the share of lines that get the higher probability from the n-gram model of their own text."""
    alphabet = len({character for text in known for line in text for character in line}) + 1
    models = [NgramModel(text, alphabet) for text in known]
    correct = sum(models[label].score(line) > models[1 - label].score(line) for label, line in lines)
    return correct / len(lines)


class NgramModel:
    """A character model of order `ORDER`, interpolated by the rule of Witten and Bell (1991), method C.

    p(c | h) = (count(hc) + types(h) p(c | h')) / (count(h) + types(h)), where h' is h without its first character and
    types(h) the number of distinct characters after h; the shortest h' is the uniform distribution.
    """

    def __init__(self, lines: list[str], alphabet: int) -> None:
        self.uniform = 1 / alphabet
        self.runs: Counter[str] = Counter(
            context[start:] + character
            for line in lines
            for context, character in read_line(line)
            for start in range(len(context) + 1)
        )
        self.tokens: Counter[str] = Counter()
        self.types: Counter[str] = Counter()
        for run, count in self.runs.items():
            self.tokens[run[:-1]] += count
            self.types[run[:-1]] += 1

    def score(self, line: str) -> float:
        """Return the log-probability of a line and its end, in nats."""
        return sum(log(self.probability(context, character)) for context, character in read_line(line))

    def probability(self, context: str, character: str) -> float:
        p = self.uniform
        for start in range(len(context), -1, -1):
            history = context[start:]
            types = self.types[history]
            if types:
                p = (self.runs[history + character] + types * p) / (self.tokens[history] + types)
        return p


def read_line(line: str) -> Iterator[tuple[str, str]]:
    """Yield each character of a line and its end, with the ones before it."""
    padded = START * (ORDER - 1) + line + END
    for place in range(ORDER - 1, len(padded)):
        yield padded[place - ORDER + 1 : place], padded[place]


def score_networks(
    known: tuple[list[str], ...], lines: list[tuple[int, str]], seed: int, time: str, document: str
) -> float:
    """Return the share of lines that `charlstm score` attributes to their own text."""
    with TemporaryDirectory() as folder:
        models: list[str] = []
        for label, text in enumerate(known):
            corpus, run = Path(folder) / f"{label}.txt", Path(folder) / f"run{label}"
            corpus.write_text("".join(f"{line}\n" for line in text), "utf-8")
            options = ("--document", document, "--max-time", time, "--seed", str(seed), "-q")
            run_command("train", str(corpus), "-o", str(run), *options)
            models += ["-m", f"{label}={run}"]
        test = Path(folder) / "lines.txt"
        test.write_text("".join(f"{line}\n" for _, line in lines), "utf-8")
        output = run_command("score", "--by", "line", *models, str(test), "--unknown", "replace", "--json")
    records = map(json.loads, output.splitlines())
    best: dict[int, str] = {record["line"]: record["best"] for record in records}
    return sum(best[number] == str(label) for number, (label, _) in enumerate(lines, 1)) / len(lines)


def run_command(*arguments: str) -> str:
    command = [sys.executable, "-m", "charlstm", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
