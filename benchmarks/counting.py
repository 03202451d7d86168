"""Which cells learn to count: a^n b^n and a^n b^n c^n (Weiss, Goldberg and Yahav 2018) and Dyck-1 (Suzgun et al. 2019).

    python benchmarks/counting.py [--cells lstm gru rnn] [--languages ab abc dyck] [--seeds 1 2 3] [--jobs 2]

Each string is a document of one line. A model of 10 units is trained on strings with n up to 100 (ab), 50 (abc) or 50
brackets (dyck). e_1 to e_5 are the first lengths n at which it fails. In ab and abc it fails if a forced symbol, or the
end, is not the most likely; in dyck, after n opening brackets, if the end is the most likely before the last closing
one, or a closing one after it. A line of JSON for each run is appended to counting.jsonl; runs that are in it are
skipped. `unit` is the one whose cell state (or output) follows the count best, by the ranking of `charlstm inspect`;
r is its correlation with the count on the second half of the strings. The table has medians over the seeds.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import charlstm
from charlstm.config import CELL_NAMES, Config, DataConfig, ModelConfig, RegularizationConfig, TrainingConfig
from charlstm.inspection.detectors import Detector
from charlstm.inspection.ranking import rank_units
from charlstm.inspection.trace import trace
from charlstm.sampling.network import Network
from charlstm.text_model import TextModel

RESULTS = Path(__file__).with_suffix(".jsonl")

LANGUAGES = {"ab": 100, "abc": 50, "dyck": 50}
"""The languages, and the largest n of a training string."""

HIDDEN, WINDOW, STREAMS, RATE = 10, 256, 8, 2e-2

STRINGS, EPOCHS = 3000, 30

LONGEST = 1000
"""The largest n that is tried."""

ERRORS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=CELL_NAMES, choices=CELL_NAMES)
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), choices=LANGUAGES)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    runs = list(product(arguments.languages, arguments.cells, arguments.seeds))
    done = read_results(arguments.output)
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(measure, *run) for run in runs if run not in done]):
            result = future.result()
            with arguments.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)
    print_table(read_results(arguments.output), runs)


def read_results(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    results = map(json.loads, lines)
    return {(each["language"], each["cell"], each["seed"]): each for each in results}


def measure(language: str, cell: str, seed: int) -> dict[str, Any]:
    """Train one model, and return at which lengths it fails."""
    config = Config(
        ModelConfig(cell=cell, hidden=HIDDEN, embedding=4),
        DataConfig(document="line"),
        TrainingConfig(
            seq_len=WINDOW,
            segment_len=0,  # which would begin within a string
            batch_size=STREAMS,
            lr=RATE,
            epochs=EPOCHS,
            seed=seed,
            threads=1,
            device="cpu",
            validate_every=10_000,
        ),
        RegularizationConfig(),
    )
    random = np.random.default_rng(seed)
    with TemporaryDirectory() as folder:
        corpus = Path(folder) / "strings.txt"
        corpus.write_text("".join(f"{draw_string(language, random)}\n" for _ in range(STRINGS)))
        for _ in charlstm.train(corpus, config, Path(folder) / "run"):
            pass
        model = charlstm.load(Path(folder) / "run")
        check = [draw_string(language, random) for _ in range(60)]
    failures = find_failures(model, language)
    unit, r = find_counter(model, check)
    return {
        "language": language,
        "cell": cell,
        "seed": seed,
        "failures": failures,
        "unit": unit,
        "r": round(r, 4),
        "loss_nats": round(model.file.metrics["validation"]["loss_nats"], 5),
    }


def draw_string(language: str, random: np.random.Generator) -> str:
    n = int(random.integers(1, LANGUAGES[language] + 1))
    if language == "dyck":
        return draw_brackets(n, random)
    return "".join(symbol * n for symbol in language)


def draw_brackets(n: int, random: np.random.Generator) -> str:
    """Return balanced brackets with n opening ones; each step opens with probability 1/2 where both are possible."""
    text, opened, depth = "", 0, 0
    while opened < n or depth:
        if opened < n and (depth == 0 or random.random() < 0.5):
            text, opened, depth = text + "(", opened + 1, depth + 1
        else:
            text, depth = text + ")", depth - 1
    return text


def find_failures(model: TextModel, language: str) -> list[int]:
    """Return the first lengths at which the model fails, at most `ERRORS`."""
    first, rest = ("(", [")"]) if language == "dyck" else (language[0], list(language[1:]))
    network, vocabulary = model.network.networks[0], model.vocabulary
    assert vocabulary.end_of_document is not None
    ids = {symbol: int(vocabulary.lookup(symbol)[0]) for symbol in (first, *rest)}
    end = vocabulary.end_of_document
    states = states_after_runs(network, end, ids[first])
    lengths = np.arange(1, LONGEST + 1)
    failed = np.zeros(LONGEST, bool)
    order = [ids[symbol] for symbol in rest]
    read = np.zeros(LONGEST, np.int64)  # symbols after the first run that each row has read
    for _ in range(len(rest) * LONGEST):
        part = np.minimum(read // lengths, len(order) - 1)
        inputs = np.array(order)[part]
        active = (read < len(order) * lengths) & ~failed
        if not active.any():
            break
        logits, states = network.step(inputs, states)
        read += 1
        best = logits.argmax(1)
        finished = read == len(order) * lengths
        if language == "dyck":
            wrong = np.where(finished, best == order[0], best == end)
        else:
            following = np.array(order)[np.minimum(read // lengths, len(order) - 1)]
            wrong = best != np.where(finished, end, following)
        failed |= active & wrong
    return [int(place) + 1 for place in np.flatnonzero(failed)[:ERRORS]]


def states_after_runs(network: Network, bos: int, symbol: int) -> list[tuple[np.ndarray[Any, Any], ...]]:
    """Return the state after 1, 2, ... `LONGEST` of a symbol, one row each."""
    _, states = network.step(np.array([bos]), network.initial_state(1))
    rows: list[list[tuple[np.ndarray[Any, Any], ...]]] = []
    for _ in range(LONGEST):
        _, states = network.step(np.array([symbol]), states)
        rows.append(states)
    return [
        tuple(np.concatenate([row[layer][k] for row in rows]) for k in range(len(states[layer])))
        for layer in range(len(states))
    ]


def find_counter(model: TextModel, strings: list[str]) -> tuple[str, float]:
    """Return the unit whose memory follows the number of first symbols less the number of second ones, and its r."""
    end = model.vocabulary.end_of_document
    assert end is not None
    pieces = [np.append(model.vocabulary.encode(text), end) for text in strings]
    up, down = ("(", ")") if strings[0].startswith("(") else ("a", "b")
    counts = [np.cumsum([(c == up) - (c == down) for c in text] + [0]) for text in strings]
    for count in counts:
        count[-1] = 0  # after the end
    recorded = trace(model.file, np.concatenate(pieces))
    memory = {name: values for name, values in recorded.series.items() if name.quantity == recorded.state[0]}
    detector = Detector("count", "number", np.concatenate(counts).astype(np.float32))
    findings, _ = rank_units(
        type(recorded)(recorded.ids, recorded.state, memory, recorded.predictions), [detector], shifts=1
    )
    return str(findings[0].best.unit), findings[0].best.score


def print_table(results: dict[tuple[str, str, int], dict[str, Any]], runs: list[tuple[str, str, int]]) -> None:
    """Print the medians over the seeds: a length that was not reached counts as the largest that was tried."""
    print("| language | cell | e_1: median (range) | e_2 | e_3 | e_4 | e_5 | r of the counting unit |")
    print("| --- " * 8 + "|")
    for language, cell in dict.fromkeys((language, cell) for language, cell, _ in runs):
        own = [results[run] for run in runs if run[:2] == (language, cell) and run in results]
        columns = [
            [each["failures"][k] if k < len(each["failures"]) else LONGEST for each in own] for k in range(ERRORS)
        ]
        first = f"{median(columns[0]):g} ({min(columns[0])} to {max(columns[0])})"
        r = median(abs(each["r"]) for each in own)
        cells = [language, cell, first, *(f"{median(column):g}" for column in columns[1:]), f"{r:.3f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
