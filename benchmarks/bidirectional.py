"""Compare the training speed of bidirectional models with that of unidirectional ones of the same size.

    python benchmarks/bidirectional.py [--rounds 20] [--threads N] [--json] [SHAPE ...]

A SHAPE is CELL:LAYERSxHIDDEN:BATCHxTIME, such as lstm:1x512:16x64. Both are steps of charlstm's trainer, on the bundled
text, with the default look-ahead, and alternate in one process. Prints median characters per second and their ratio.
"""

# ruff: noqa: E402 - threads and memory are configured before torch is imported
from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from statistics import median
from time import perf_counter

from charlstm.runtime import retain_freed_memory

retain_freed_memory()

import torch

from charlstm import presets
from charlstm.config import Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.data.corpus import Corpus, read_corpus
from charlstm.training.trainer import Trainer

SHAPES = ("lstm:1x512:16x64", "lstm:1x384:16x64", "lstm:2x512:32x64", "gru:1x512:16x64", "lstm:1x512:16x128")
UNTIMED = 3


def make_trainer(corpus: Corpus, shape: str, bidirectional: bool) -> Trainer:
    match = re.fullmatch(r"([a-z-]+):(\d+)x(\d+):(\d+)x(\d+)", shape)
    assert match, shape
    cell, (layers, hidden, batch, time) = match[1], map(int, match.groups()[1:])
    model = ModelConfig(cell=cell, layers=layers, hidden=hidden, dropout=0.25, bidirectional=bidirectional)
    return Trainer(corpus, Config(model, training=replace(TrainingConfig(), batch_size=batch, seq_len=time)))


def measure(corpus: Corpus, shape: str, rounds: int) -> dict[str, float | str]:
    trainers = {
        name: make_trainer(corpus, shape, name == "bidirectional") for name in ("unidirectional", "bidirectional")
    }
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(UNTIMED + rounds):
        for name, trainer in trainers.items():
            start = perf_counter()
            trainer.step(1e-4)
            if turn >= UNTIMED:
                times[name].append(perf_counter() - start)
    batches = trainers["unidirectional"].batches
    rates = {name: batches.batch_size * batches.seq_len / median(taken) for name, taken in times.items()}
    return {"shape": shape, **rates, "ratio": rates["bidirectional"] / rates["unidirectional"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=SHAPES)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    corpus = read_corpus(DataConfig(corpus=(str(presets.bundled_corpus()),)))
    for shape in arguments.shapes or SHAPES:
        found = measure(corpus, shape, arguments.rounds)
        if arguments.json:
            print(json.dumps(found), flush=True)
        else:
            print(
                f"{found['shape']:20} {found['unidirectional']:8,.0f} {found['bidirectional']:8,.0f} characters/s, "
                f"ratio {found['ratio']:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
