"""What models lose when they sample with 8-bit weights: nats per symbol, on places spread over a text.

    python benchmarks/quantization.py TEXT MODEL [MODEL ...] [--places 128] [--symbols 512]

Both precisions read the same symbols from a zero state; the first 32 of each place do not count. The difference is
given with its standard error over the places.
"""

from __future__ import annotations

import argparse
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlstm.sampling.filters import log_softmax
from charlstm.sampling.network import Network
from charlstm.storage.locate import find_model
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import Ids

WARMUP = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--places", type=int, default=128)
    parser.add_argument("--symbols", type=int, default=512)
    arguments = parser.parse_args()
    text = arguments.text.read_text("utf-8")
    print(f"{'model':24} {'float32':>8} {'difference':>11} {'error':>8}   nats per symbol")
    for path in arguments.models:
        file = ModelFile.load(find_model(path, {}))
        ids = file.vocabulary.encode(text, "skip")
        starts = np.linspace(0, len(ids) - arguments.symbols, arguments.places).astype(np.int64)
        read = ids[starts + np.arange(arguments.symbols)[:, None]]
        exact, rounded = (mean_losses(file, read, quantized) for quantized in (False, True))
        difference = rounded - exact
        error = difference.std() / sqrt(len(difference))
        model = file.config.model
        name = f"{model.cell} {model.layers}x{model.hidden}"
        print(f"{name:24} {exact.mean():8.4f} {difference.mean():+11.5f} {error:8.5f}", flush=True)


def mean_losses(file: ModelFile, ids: Ids, quantized: bool) -> NDArray[np.float64]:
    """Return the mean loss at each place, [N]. `ids` is [T, N]."""
    half = file.select_direction("forward")
    network = Network(half.config.model, half.weights, file.vocabulary.end_of_document, quantized=quantized)
    states, losses = network.initial_state(ids.shape[1]), []
    for t in range(len(ids) - 1):
        logits, states = network.step(ids[t], states)
        losses.append(-np.take_along_axis(log_softmax(logits), ids[t + 1][:, None], 1)[:, 0])
    found: NDArray[np.float64] = np.mean(losses[WARMUP:], 0, dtype=np.float64)
    return found


if __name__ == "__main__":
    main()
