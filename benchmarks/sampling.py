"""Characters per second of one sequence: `charlstm sample`'s network compared with a plain loop over torch's layers.

    python benchmarks/sampling.py [--seconds 2] [--rounds 5] [--json] [--batches]

All draw from softmax(logits / 0.8) of the same random weights, in turn, in one process; medians, and the ratio of 8-bit
weights to torch. `float32` and `8-bit` are NumPy alone; `compiled` multiplies 8-bit weights with the kernel that numba
compiles. With --batches: many sequences at once. Float32 takes one matrix-vector product per row, so that a sample does
not depend on its neighbors; 8-bit weights take one product for all rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from math import inf
from statistics import median
from time import perf_counter
from unittest import mock

import numpy as np
import torch
from torch import nn

from charlstm.config import ModelConfig, SamplingConfig
from charlstm.model.language_model import LanguageModel
from charlstm.sampling import generate as generate_module
from charlstm.sampling.compiled import compile_network
from charlstm.sampling.generate import generate
from charlstm.sampling.network import Network
from charlstm.vocabulary import CharVocabulary

SIZE = 65
TEMPERATURE = 0.8
MODELS = [
    ("lstm", 2, 128),
    ("lstm", 2, 256),
    ("lstm", 2, 512),
    ("lstm", 2, 1024),
    ("lstm", 1, 384),
    ("gru", 2, 256),
    ("rnn", 2, 256),
]


def with_numpy(
    model: LanguageModel, config: ModelConfig, n: int = 1, *, quantized: bool = True, compiled: bool = False
) -> Iterator[object]:
    """Draw characters of `n` samples as `charlstm sample` does."""
    vocabulary = CharVocabulary("".join(chr(32 + i) for i in range(SIZE)))
    settings = SamplingConfig(temperature=TEMPERATURE, length=0)
    network = Network(config, model.export_weights(), quantized=quantized)
    if compiled:
        compile_network(network)
    with mock.patch.object(generate_module, "COMPILE_AFTER", inf):
        yield from generate(network, vocabulary, np.zeros(0, np.int64), settings, seed=1, n=n)


@torch.no_grad()
def with_torch(model: LanguageModel) -> Iterator[object]:
    """Draw characters as char-rnn's successors do: call `nn.LSTM` and its like with a sequence of one."""
    embedding, head = model.embedding, model.head
    layers: list[nn.Module] = [layer.core for layer in model.stack.layers]  # type: ignore[misc]
    states = [None] * len(layers)
    ids = torch.zeros(1, 1, dtype=torch.long)
    while True:
        x = embedding(ids)
        for k, layer in enumerate(layers):
            x, states[k] = layer(x, states[k])
        ids = torch.multinomial((head(x[0]) / TEMPERATURE).softmax(-1), 1)
        yield ids.item()


def rate(characters: Iterator[object], seconds: float) -> float:
    """Return characters per second over about this many seconds."""
    count, start = 0, perf_counter()
    while perf_counter() - start < seconds:
        count += sum(1 for _ in islice(characters, 50))
    return count / (perf_counter() - start)


def compare_batches(seconds: float, rounds: int) -> None:
    """Print a line per model and number of sequences."""
    print(f"{'model':12} {'samples':>8} {'float32':>9} {'8-bit':>9} {'ratio':>6}   characters/s")
    for cell, layers, hidden in MODELS:
        config = ModelConfig(cell=cell, layers=layers, hidden=hidden)
        model = LanguageModel(config, SIZE, "torch").eval()
        for n in (1, 2, 8, 64):
            sides = {
                "float32": partial(with_numpy, model, config, n, quantized=False),
                "8-bit": partial(with_numpy, model, config, n),
            }
            found = compare(sides, seconds, rounds)
            ratio = found["8-bit"] / found["float32"]
            name = f"{cell} {layers}x{hidden}"
            print(f"{name:12} {n:8} {found['float32']:9,.0f} {found['8-bit']:9,.0f} {ratio:6.2f}", flush=True)


def compare(sides: Mapping[str, Callable[[], Iterator[object]]], seconds: float, rounds: int) -> dict[str, float]:
    """Return the median rate of each side, run in turn, after a warm-up."""
    running = {name: make() for name, make in sides.items()}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, characters in running.items():
            measured = rate(characters, seconds)
            if turn:
                rates[name].append(measured)
    return {name: median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--batches", action="store_true", help="compare ways to draw many samples at once")
    arguments = parser.parse_args()
    if arguments.batches:
        compare_batches(arguments.seconds, arguments.rounds)
        return
    if not arguments.json:
        heads = "".join(f"{side:>10}" for side in ("torch", "float32", "8-bit", "compiled"))
        print(f"{'model':12}{heads} {'ratio':>6}   characters/s")
    for cell, layers, hidden in MODELS:
        config = ModelConfig(cell=cell, layers=layers, hidden=hidden)
        model = LanguageModel(config, SIZE, "torch").eval()
        sides = {
            "torch": partial(with_torch, model),
            "float32": partial(with_numpy, model, config, quantized=False),
            "8-bit": partial(with_numpy, model, config),
            "compiled": partial(with_numpy, model, config, compiled=True),
        }
        found = compare(sides, arguments.seconds, arguments.rounds)
        ratio = found["8-bit"] / found["torch"]
        name = f"{cell} {layers}x{hidden}"
        if arguments.json:
            print(
                json.dumps(
                    {
                        "model": name,
                        **{f"{side}_chars_per_second": round(v) for side, v in found.items()},
                        "ratio": round(ratio, 2),
                    }
                )
            )
        else:
            print(f"{name:12}{''.join(f'{rate:10,.0f}' for rate in found.values())} {ratio:6.1f}", flush=True)


if __name__ == "__main__":
    main()
