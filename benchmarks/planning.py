"""Measure the losses that runs of many sizes and lengths reach, and fit the law that `--max-time` predicts them with.

    python benchmarks/planning.py measure text.txt [--sizes 1x64 ...] [--characters 1e6 ...] [--set model.dropout=0.4]
    python benchmarks/planning.py fit

`measure` appends a line of JSON for each run to planning.jsonl and skips the runs that it has. The loss is that of the
same pieces from all over the text, which no run is trained on. Losses do not depend on the speed of the machine, so
other programs may run at the same time. `fit` prints the constants of `charlstm.training.scaling` and a table of
measured and predicted losses of LSTMs.
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
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.architecture import count_recurrent_weights
from charlstm.config import Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.data.corpus import Corpus
from charlstm.settings import updated
from charlstm.training.auto_config import fit_to_length
from charlstm.training.scaling import LAW, ScalingLaw, predict_excess_loss
from charlstm.training.schedule import learning_rate
from charlstm.training.trainer import Trainer

MEASUREMENTS = Path(__file__).with_suffix(".jsonl")

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
    fitting = commands.add_parser("fit")
    fitting.add_argument("--input", type=Path, default=MEASUREMENTS)
    fitting.set_defaults(function=fit)
    arguments = parser.parse_args()
    arguments.function(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Take the runs that are missing, the shortest first."""
    done = {identify(run) for run in read_measurements(arguments.output)}
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
    runs = sorted((run for run in runs if identify(run) not in done), key=lambda run: run["characters"] * run["hidden"])
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(train, arguments.corpus, run) for run in runs]):
            line = json.dumps(future.result())
            print(line, flush=True)
            with arguments.output.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


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
    return [json.loads(line) for line in lines]


def train(path: Path, run: Run) -> Run:
    """Train on one core, and return the run with its loss."""
    corpus, share = cut(path, run["unique"])
    config = Config(
        ModelConfig(
            cell=run["cell"],
            layers=run["layers"],
            hidden=run["hidden"],
            embedding=32 if run["hidden"] <= 128 else 64,
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
    texts = sorted({run["text"] for run in runs}, reverse=True)  # the scale of the first is 1
    reached = np.array([run["loss_nats"] for run in runs])

    def predict(logs: Vector) -> Vector:
        """Return the losses for the logarithms of the floors and scales of the texts, and of the constants."""
        floors, scales = np.exp(logs[: len(texts)]), np.exp([0.0, *logs[len(texts) : 2 * len(texts) - 1]])
        law = ScalingLaw(*np.exp(logs[2 * len(texts) - 1 :]).tolist())
        indices = [texts.index(run["text"]) for run in runs]
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
    for run, loss in zip(runs, predict(best[0]), strict=True):
        cells = (
            run["text"],
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
