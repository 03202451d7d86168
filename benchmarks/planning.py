"""Measure the losses that runs of many sizes and lengths reach, and fit the law that `--max-time` predicts them with.

    python benchmarks/planning.py measure text.txt [--sizes 1x64 ...] [--characters 1e6 ...] [--set model.dropout=0.4]
    python benchmarks/planning.py compare text.txt [--seconds 30 120 480]
    python benchmarks/planning.py fit

`measure` appends a line of JSON for each run to planning.jsonl and skips the runs that it has. The loss is that of the
same pieces from all over the text, which no run is trained on. Losses do not depend on the speed of the machine, so
other programs may run at the same time. `compare` does the same for the candidates of `--max-time`, at the speeds of
the reference machine, prints the predicted and the reached loss of each, and appends to candidates.jsonl. `fit` prints
the constants of `charlstm.training.scaling` and a table of measured and predicted losses of LSTMs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from charlstm.architecture import count_recurrent_weights
from charlstm.config import Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.data.corpus import Corpus
from charlstm.settings import updated
from charlstm.training import speed
from charlstm.training.auto_config import BIGRAM_ROWS, Candidate, choose_config, fit_to_length
from charlstm.training.scaling import LAW, ScalingLaw, predict_excess_loss
from charlstm.training.schedule import learning_rate
from charlstm.training.trainer import Trainer

MEASUREMENTS, CANDIDATES = Path(__file__).with_suffix(".jsonl"), Path(__file__).with_name("candidates.jsonl")

VALIDATION, PIECES = 200_000, 50
"""Characters of the validation part (a tenth of a shorter text), and the number of places they are from."""

STARTS = 20
"""Points from which the fit is begun: the error has several minima."""

Vector = NDArray[np.float64]

Run = dict[str, Any]
"""The settings of a run; with its result, a line of the measurements."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("corpus", type=Path)
    measuring.add_argument("--sizes", nargs="+", default=["1x64", "1x128", "1x256", "1x384", "1x512"])
    measuring.add_argument("--cells", nargs="+", default=["lstm"])
    measuring.add_argument("--batches", nargs="+", default=["16x64"], help="streams x characters of a window")
    measuring.add_argument("--rates", type=float, nargs="+", default=[0.0], help="learning rates; 0: the planned one")
    measuring.add_argument("--characters", type=float, nargs="+", default=[3e5, 1e6], help="that a run reads")
    measuring.add_argument("--unique", type=float, nargs="+", default=[0.0], help="of the text; 0: all")
    measuring.add_argument("--seeds", type=int, nargs="+", default=[1])
    measuring.add_argument("--set", action="append", default=[], metavar="KEY=NUMBER", help="not the planned value")
    measuring.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    measuring.add_argument("--output", type=Path, default=MEASUREMENTS)
    measuring.set_defaults(function=measure)
    comparing = commands.add_parser("compare")
    comparing.add_argument("corpus", type=Path)
    comparing.add_argument("--seconds", type=float, nargs="+", default=[30.0, 120.0, 480.0])
    comparing.add_argument("--margin", type=float, default=0.04, help="that a candidate may be behind, in nats")
    comparing.add_argument("--seeds", type=int, nargs="+", default=[1])
    comparing.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    comparing.add_argument("--output", type=Path, default=CANDIDATES)
    comparing.set_defaults(function=compare)
    fitting = commands.add_parser("fit")
    fitting.add_argument("--input", type=Path, default=MEASUREMENTS)
    fitting.set_defaults(function=fit)
    arguments = parser.parse_args()
    arguments.function(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Train with each combination of the values given."""
    runs = [
        describe_run(arguments.corpus, *choice)
        for choice in product(
            arguments.cells,
            arguments.sizes,
            arguments.batches,
            arguments.rates,
            arguments.characters,
            arguments.unique,
            arguments.seeds,
        )
    ]
    if arguments.set:
        settings = {key: float(value) for key, _, value in (given.partition("=") for given in arguments.set)}
        runs = [run | {"settings": settings} for run in runs]
    take(runs, arguments)


def take(runs: list[Run], arguments: argparse.Namespace) -> None:
    """Take those of these runs that were not measured before, the shortest first."""
    done = {identify(run) for run in read_measurements(arguments.output)}
    runs = sorted((run for run in runs if identify(run) not in done), key=lambda run: run["characters"] * run["hidden"])
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(train, arguments.corpus, run) for run in runs]):
            line = json.dumps(future.result())
            print(line, flush=True)
            with arguments.output.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def compare(arguments: argparse.Namespace) -> None:
    """Train each candidate that could be the best, and print a table."""
    chosen = {seconds: list_candidates(arguments.corpus, seconds, arguments.margin) for seconds in arguments.seconds}
    runs = {
        seconds: [[describe_candidate(arguments.corpus, each, seed) for seed in arguments.seeds] for each in candidates]
        for seconds, candidates in chosen.items()
    }
    take([run for candidates in runs.values() for seeds in candidates for run in seeds], arguments)
    losses = {identify(run): run["loss_nats"] for run in read_measurements(arguments.output)}
    print("| seconds | size | batch | characters | passes | predicted above the chosen | reached above it | reached |")
    print("| --- " * 8 + "|")
    for seconds, candidates in chosen.items():
        reached = [mean(losses[identify(run)] for run in seeds) for seeds in runs[seconds]]
        for candidate, loss, (run, *_) in zip(candidates, reached, runs[seconds], strict=True):
            cells = (
                f"{seconds:g}",
                f"{run['layers']}x{run['hidden']}",
                f"{run['batch_size']}x{run['seq_len']}",
                f"{run['characters']:,}",
                f"{candidate.epochs:.2g}",
                f"{candidate.loss_nats - candidates[0].loss_nats:+.3f}",
                f"{loss - reached[0]:+.3f}",
                f"{loss:.3f}",
            )
            print("| " + " | ".join(cells) + " |")


def list_candidates(path: Path, seconds: float, margin: float) -> list[Candidate]:
    """Return the choice of `--max-time` on the reference machine, and the other sizes that promise about as much."""
    corpus, share = cut(path, 0)
    config = Config(data=DataConfig(split=(1 - share, share)), training=TrainingConfig(max_time=seconds))

    def reference(sample: Corpus, config: Config) -> float:
        return speed.reference_step_seconds(config, sample.vocabulary.size)

    with patch.object(speed, "measure_step_seconds", reference):
        chosen, *others = choose_config(corpus, config, ()).candidates
    return [chosen, *(each for each in others if each.loss_nats < chosen.loss_nats + margin)]


def describe_candidate(path: Path, candidate: Candidate, seed: int) -> Run:
    model, training = candidate.config.model, candidate.config.training
    size, batch = f"{model.layers}x{model.hidden}", f"{training.batch_size}x{training.seq_len}"
    characters = float(f"{candidate.characters:.3g}")
    return describe_run(path, model.cell, size, batch, 0, characters, 0, seed)


def describe_run(
    corpus: Path,
    cell: str,
    size: str,
    batch: str,
    rate: float,
    characters: float,
    unique: float,
    seed: int,
) -> Run:
    layers, hidden = map(int, size.split("x"))
    batch_size, seq_len = map(int, batch.split("x"))
    return {
        "text": corpus.name,
        "cell": cell,
        "layers": layers,
        "hidden": hidden,
        "bigrams": BIGRAM_ROWS,
        "batch_size": batch_size,
        "seq_len": seq_len,
        "lr": rate,
        "characters": round(characters),
        "unique": round(unique),
        "seed": seed,
    }


def identify(run: Run) -> tuple[Any, ...]:
    settings = tuple(sorted(run.get("settings", {}).items()))
    return (settings, *(run[key] for key in describe_run(Path(), "", "1x1", "1x1", 0, 0, 0, 0)))


def read_measurements(path: Path) -> list[Run]:
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [{"bigrams": 0} | json.loads(line) for line in lines]  # the oldest had no embeddings of pairs


def train(path: Path, run: Run) -> Run:
    """Train on one core, and return the run with its loss."""
    corpus, share = cut(path, run["unique"])
    config = Config(
        ModelConfig(
            cell=run["cell"],
            layers=run["layers"],
            hidden=run["hidden"],
            embedding=32 if run["hidden"] <= 128 else 64,
            bigrams=run["bigrams"],
        ),
        DataConfig(corpus=(str(path),), split=(1 - share, share)),
        TrainingConfig(
            batch_size=run["batch_size"],
            seq_len=run["seq_len"],
            seed=run["seed"],
            threads=1,
            device="cpu",
        ),
    )
    length = len(corpus.split(config.data.split).part("train"))
    settings = fit_to_length(config, run["characters"], length) | run.get("settings", {})
    config = updated(config, settings, "the benchmark")
    if run["lr"]:
        config = updated(config, {"training.lr": run["lr"]}, "the benchmark")
    began = perf_counter()
    trainer = Trainer(corpus, config)
    steps = max(round(run["characters"] / (run["batch_size"] * run["seq_len"])), 1)
    for step in range(steps):
        trainer.step(learning_rate(config.training, step / steps, 0))
    seconds = perf_counter() - began
    with trainer.average.applied():
        metrics = trainer.evaluate_part("val", 0)
    assert metrics is not None
    result = {
        "text_length": length,
        "weights": count_recurrent_weights(config.model),
        "symbols": trainer.vocabulary.size,
        "seconds": round(seconds, 1),
        "loss_nats": round(metrics.loss_nats, 4),
    }
    return run | result


def fit(arguments: argparse.Namespace) -> None:
    """Print the constants with the smallest squared error, and the predicted next to the reached losses."""
    runs = [run for run in read_measurements(arguments.input) if run["cell"] == "lstm" and "settings" not in run]
    kinds = [run["text"] if run["bigrams"] else f"{run['text']} without pairs" for run in runs]
    texts = sorted(set(kinds), reverse=True)  # the scale of the first is 1
    reached = np.array([run["loss_nats"] for run in runs])

    def predict(logs: Vector) -> Vector:
        """Return the losses for the logarithms of the floors and scales of the texts, and of the constants."""
        logs = np.clip(logs, -30, 3.5)  # larger exponents overflow
        floors, scales = np.exp(logs[: len(texts)]), np.exp([0.0, *logs[len(texts) : 2 * len(texts) - 1]])
        law = ScalingLaw(*np.exp(logs[2 * len(texts) - 1 :]).tolist())
        indices = [texts.index(kind) for kind in kinds]
        return np.array(
            [floors[k] + scales[k] * predict_excess(run, law) for k, run in zip(indices, runs, strict=True)]
        )

    first = np.log([*[1.0] * (2 * len(texts) - 1), *LAW])
    starts = [first + np.random.default_rng(k).normal(0, 0.5 * (k > 0), len(first)) for k in range(STARTS)]
    best = min((minimize(lambda logs: predict(logs) - reached, start) for start in starts), key=lambda found: found[1])
    print(f"root mean square error {best[1] ** 0.5:.4f} nats/char over {len(runs)} runs")
    names = [*(f"floor of {text}" for text in texts), *(f"scale of {text}" for text in texts[1:]), *ScalingLaw._fields]
    for name, value in zip(names, np.exp(best[0]), strict=True):
        print(f"{name} = {value:.5g}")
    print("| text | size | batch | characters | passes | reached | predicted |")
    print("| --- " * 7 + "|")
    for run, kind, loss in zip(runs, kinds, predict(best[0]), strict=True):
        cells = (
            kind,
            f"{run['layers']}x{run['hidden']}",
            f"{run['batch_size']}x{run['seq_len']}",
            f"{run['characters']:,}",
            f"{run['characters'] / run['text_length']:.2g}",
            f"{run['loss_nats']:.3f}",
            f"{loss:.3f}",
        )
        print("| " + " | ".join(cells) + " |")


def predict_excess(run: Run, law: ScalingLaw) -> float:
    batch = run["batch_size"] * run["seq_len"]
    return predict_excess_loss(run["layers"], run["weights"], run["characters"], run["text_length"], batch, law)


def minimize(residuals: Callable[[Vector], Vector], start: Vector) -> tuple[Vector, float]:
    """Return the point near `start` with the least mean square of these residuals, and that (Levenberg-Marquardt)."""
    point, damping = start, 1.0
    here = residuals(point)
    for _ in range(300):
        slopes = np.stack([(residuals(point + step) - here) / 1e-5 for step in 1e-5 * np.eye(len(point))], 1)
        normal = slopes.T @ slopes
        step = np.linalg.solve(
            normal + damping * (np.diag(np.diag(normal)) + 1e-9 * np.eye(len(point))), -slopes.T @ here
        )
        there = residuals(point + np.clip(step, -1, 1))
        if (there**2).sum() < (here**2).sum():
            point, here, damping = point + np.clip(step, -1, 1), there, damping / 3
        else:
            damping *= 4
        if damping > 1e9:
            break
    return point, float((here**2).mean())


@cache
def cut(path: Path, unique: int) -> tuple[Corpus, float]:
    """Return a text whose end is the validation part, and the share of that.

    The part is pieces from all over the text: a long text is not the same everywhere. With `unique`, the training part
    is about that many characters, also from all over.
    """
    text = path.read_text("utf-8")
    piece, distance = min(VALIDATION, len(text) // 10) // PIECES, len(text) // PIECES
    parts = [text[k * distance : (k + 1) * distance] for k in range(PIECES)]
    longest = unique // PIECES or distance
    kept = "".join(part[: min(distance - piece, longest)] for part in parts)
    taken = "".join(part[-piece:] for part in parts)
    whole = kept + taken
    return Corpus.from_text(whole), len(taken) / len(whole)


if __name__ == "__main__":
    main()
