"""Characters per second of samplers: charlstm next to other programs and to plain torch, in turn in one process.

    python benchmarks/peers.py [--char-rnn CHECKOUT] [--nanogpt CHECKOUT] [--hidden 512] [--seconds 3] [--rounds 3]

All recurrent models are LSTMs of two layers with random weights, over 100 symbols, at temperature 0.8. The checkouts
are those of spro/char-rnn.pytorch and karpathy/nanoGPT; nanoGPT has the settings that its README gives for a CPU.
charlstm draws one sample, 64 and 1,000; all in this process, where the command would use one process per core.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from charlstm.config import ModelConfig, SamplingConfig
from charlstm.model.language_model import LanguageModel
from charlstm.sampling.compiled import compile_network
from charlstm.sampling.generate import generate
from charlstm.sampling.network import Network
from charlstm.vocabulary import CharVocabulary

SYMBOLS = 100
TEMPERATURE = 0.8
CHUNK = 100
"""Characters of one call of a program that returns whole samples."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--char-rnn", type=Path)
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sides = torch_sides(arguments.hidden)
    if arguments.char_rnn:
        sides["char-rnn.pytorch"] = char_rnn(arguments.char_rnn, arguments.hidden)
    if arguments.nanogpt:
        sides["nanoGPT, CPU settings"] = nano_gpt(arguments.nanogpt)
    sides |= charlstm_sides(arguments.hidden)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(arguments.rounds + 1):
        for name, side in sides.items():
            measured = rate(side, arguments.seconds)
            if turn:  # the first is a warm-up
                rates[name].append(measured)
    for name, found in rates.items():
        print(f"{name:36}{median(found):10,.0f}   characters/s")


def rate(side: Callable[[], Iterator[int]], seconds: float) -> float:
    """Return the characters/s of a sampler, which yields how many it has drawn each time."""
    drawn, start = 0, perf_counter()
    for characters in side():
        drawn += characters
        if (elapsed := perf_counter() - start) > seconds:
            break
    return drawn / elapsed


def torch_sides(hidden: int) -> dict[str, Callable[[], Iterator[int]]]:
    """Return loops over `nn.LSTM`: as it is, with 8-bit weights, and compiled where that works."""
    model = nn.ModuleDict(
        {"embedding": nn.Embedding(SYMBOLS, 64), "core": nn.LSTM(64, hidden, 2), "head": nn.Linear(hidden, SYMBOLS)}
    ).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch moves its quantization to another package
        quantize: Any = torch.ao.quantization.quantize_dynamic
        quantized = quantize(model, {nn.LSTM, nn.Linear}, dtype=torch.qint8)
    sides: dict[str, Callable[[], Iterator[int]]] = {
        "nn.LSTM": partial(step_torch, model),
        "nn.LSTM, 8 bits": partial(step_torch, quantized),
    }
    try:
        compiled = torch.compile(partial(forward, model))
        next(step_torch(model, compiled))
        sides["nn.LSTM, torch.compile"] = partial(step_torch, model, compiled)
    except Exception as error:  # it needs a C++ compiler
        print(f"torch.compile does not run here: {type(error).__name__}", file=sys.stderr)
    return sides


def forward(model: Any, ids: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
    output, state = model["core"](model["embedding"](ids), state)
    return model["head"](output[0]), state


@torch.no_grad()
def step_torch(model: Any, step: Callable[..., Any] | None = None) -> Iterator[int]:
    ids, state = torch.zeros(1, 1, dtype=torch.long), None
    while True:
        logits, state = (step or partial(forward, model))(ids, state)
        ids = torch.multinomial((logits / TEMPERATURE).softmax(-1), 1)
        yield ids.numel()


def char_rnn(checkout: Path, hidden: int) -> Callable[[], Iterator[int]]:
    """Return the sampler of char-rnn.pytorch."""
    sys.modules.setdefault("unidecode", types.ModuleType("unidecode"))  # for reading a corpus only
    sys.path.insert(0, str(checkout))
    model, program = (importlib.import_module(name) for name in ("model", "generate"))
    decoder = model.CharRNN(SYMBOLS, hidden, SYMBOLS, model="lstm", n_layers=2).eval()
    sys.path.remove(str(checkout))
    del sys.modules["model"]
    return lambda: (len(program.generate(decoder, "A", CHUNK, TEMPERATURE)) - 1 for _ in count())


def nano_gpt(checkout: Path) -> Callable[[], Iterator[int]]:
    """Return the sampler of nanoGPT with a context of 64 characters that is full."""
    sys.path.insert(0, str(checkout))
    program = importlib.import_module("model")
    sys.path.remove(str(checkout))
    settings = program.GPTConfig(
        block_size=64, vocab_size=SYMBOLS, n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False
    )
    model = program.GPT(settings).eval()
    context = torch.zeros(1, 64, dtype=torch.long)
    return lambda: (model.generate(context, CHUNK, TEMPERATURE).shape[1] - 64 for _ in count())


def charlstm_sides(hidden: int) -> dict[str, Callable[[], Iterator[int]]]:
    """Return charlstm with one sample, in NumPy and compiled, and with many."""
    config = ModelConfig(layers=2, hidden=hidden)
    weights = LanguageModel(config, SYMBOLS, "torch").export_weights()
    vocabulary = CharVocabulary("".join(chr(0x100 + k) for k in range(SYMBOLS)))
    one, compiled, many = (Network(config, weights, quantized=True) for _ in range(3))
    compile_network(compiled)

    def draw(network: Network, n: int, length: int) -> Iterator[int]:
        settings = SamplingConfig(temperature=TEMPERATURE, length=length)
        for seed in count():
            yield from (1 for _ in generate(network, vocabulary, np.zeros(0, np.int64), settings, seed=seed, n=n))

    return {
        "charlstm, NumPy": partial(draw, one, 1, 1000),
        "charlstm, numba": partial(draw, compiled, 1, 1000),
        "charlstm, 64 samples": partial(draw, many, 64, 200),
        "charlstm, 1,000 samples": partial(draw, many, 1000, 200),
    }


if __name__ == "__main__":
    main()
