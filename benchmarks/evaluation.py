"""Seconds to evaluate a model of 2x512 units on 100,000 characters, by each engine that has the cell.

python benchmarks/evaluation.py [--cell lstm] [--rounds 3] [--json]
"""

# ruff: noqa: E402 - threads and memory are configured before torch is imported
from __future__ import annotations

import argparse
import json
from dataclasses import replace
from statistics import median
from time import perf_counter

from charlstm.runtime import retain_freed_memory

retain_freed_memory()

import numpy as np

from charlstm.config import ModelConfig
from charlstm.evaluation.evaluate import evaluate
from charlstm.model.device import choose_device, has_torch_layer
from charlstm.model.language_model import LanguageModel

SYMBOLS, LENGTH = 65, 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    config = replace(ModelConfig(), cell=arguments.cell, layers=2, hidden=512)
    engines = ["kernel", "torch"] if has_torch_layer(config) else ["kernel"]
    ids = np.random.default_rng(0).integers(SYMBOLS, size=LENGTH)
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    for _ in range(arguments.rounds):
        for engine, seconds in times.items():
            device = choose_device(config, precision="fp32", engine=engine)
            model = LanguageModel(config, SYMBOLS, device.engine).to(device.name)
            start = perf_counter()
            evaluate(model, ids, bos=0, size_bytes=LENGTH)
            seconds.append(perf_counter() - start)
    auto = choose_device(config, precision="fp32").engine
    for engine, seconds in times.items():
        row = {"cell": arguments.cell, "engine": engine, "auto": engine == auto, "seconds": round(median(seconds), 2)}
        print(json.dumps(row) if arguments.json else f"{engine:7} {row['seconds']:6} s{'  (auto)' * row['auto']}")


if __name__ == "__main__":
    main()
