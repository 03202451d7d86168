"""Characters a second in training, for each preset: forward, backward, clip, optimizer step.

    python benchmarks/presets.py [--seconds 5] [--rounds 3] [--json] [PRESET ...]

The text is the English corpus that ships with charlstm, repeated to a megabyte; the presets take turns; medians.
"""

# ruff: noqa: E402 - how threads wait and memory is kept is settled before torch is imported
from __future__ import annotations

import argparse
import json
from dataclasses import replace
from statistics import median
from time import perf_counter

from charlstm.runtime import configure_process

configure_process()

from charlstm import presets
from charlstm.data.corpus import Corpus
from charlstm.settings import resolve
from charlstm.training.trainer import Trainer


def trainer_of(preset: str) -> Trainer:
    config = resolve(presets.load_preset(preset))
    name = "chinese.txt" if preset == "chinese" else "english.txt"
    text = (presets.bundled_folder("corpora") / name).read_text("utf-8")
    text *= -(-1_000_000 // len(text))
    corpus = Corpus.from_text(text.encode() if config.data.level == "byte" else text, config.data)
    return Trainer(corpus, replace(config, training=replace(config.training, max_time=0.0)))


def rate(trainer: Trainer, seconds: float) -> float:
    """Characters a second over about this long."""
    begun, before = perf_counter(), trainer.progress.characters
    while (elapsed := perf_counter() - begun) < seconds:
        trainer.step(trainer.config.training.lr)
    return (trainer.progress.characters - before) / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=presets.preset_names(), metavar="PRESET")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    trainers = {name: trainer_of(name) for name in arguments.presets}
    rates: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(arguments.rounds + 1):
        for name, trainer in trainers.items():
            measured = rate(trainer, arguments.seconds if turn else 0.1)
            if turn:
                rates[name].append(measured)
    for name, found in rates.items():
        model = trainers[name].config.model
        shape = f"{model.cell} {model.layers}x{model.hidden}"
        if arguments.json:
            print(json.dumps({"preset": name, "model": shape, "chars_per_second": round(median(found))}))
        else:
            print(f"{name:10} {shape:14} {median(found):10,.0f} characters/s  ({trainers[name].device})")


if __name__ == "__main__":
    main()
