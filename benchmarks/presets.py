"""Training speed of each preset, in characters per second: forward, backward, clipping and optimizer step.

    python benchmarks/presets.py [--seconds 5] [--rounds 3] [--json] [PRESET ...]

The text is the corpus that ships with charlstm, repeated to a megabyte. The presets take turns; the result is the
median over the rounds.
"""

# ruff: noqa: E402 - the process is configured before torch is imported
from __future__ import annotations

import argparse
import json
from dataclasses import replace
from statistics import median
from time import perf_counter

from charlstm.runtime import retain_freed_memory

retain_freed_memory()

from charlstm import presets
from charlstm.data.corpus import Corpus
from charlstm.settings import resolve
from charlstm.training.trainer import Trainer


def build_trainer(preset: str) -> Trainer:
    """Return a trainer with the settings of a preset."""
    config = resolve(presets.load_preset(preset))
    name = "chinese.txt" if preset == "chinese" else "english.txt"
    text = (presets.bundled_folder("corpora") / name).read_text("utf-8")
    text *= -(-1_000_000 // len(text))
    corpus = Corpus.from_text(text.encode() if config.data.level == "byte" else text, config.data)
    return Trainer(corpus, replace(config, training=replace(config.training, max_time=0.0)))


def measure_speed(trainer: Trainer, seconds: float) -> float:
    """Return the characters per second over about this long."""
    began, before = perf_counter(), trainer.progress.characters
    while (elapsed := perf_counter() - began) < seconds:
        trainer.step(trainer.config.training.lr)
    return (trainer.progress.characters - before) / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=presets.preset_names(), metavar="PRESET")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each turn (default 5)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    trainers = {name: build_trainer(name) for name in arguments.presets}
    speeds: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(arguments.rounds + 1):
        for name, trainer in trainers.items():
            speed = measure_speed(trainer, arguments.seconds if turn else 0.1)
            if turn:
                speeds[name].append(speed)
    for name, measured in speeds.items():
        model = trainers[name].config.model
        shape = f"{model.cell} {model.layers}x{model.hidden}"
        if arguments.json:
            print(json.dumps({"preset": name, "model": shape, "chars_per_second": round(median(measured))}))
        else:
            print(f"{name:10} {shape:14} {median(measured):10,.0f} characters/s  ({trainers[name].device})")


if __name__ == "__main__":
    main()
