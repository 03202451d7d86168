"""Loss after as many minutes of training: charlstm next to char-rnn.pytorch and nanoGPT, on the CPU.

    python benchmarks/peer_training.py TEXT... --char-rnn CHECKOUT --nanogpt CHECKOUT [--minutes 1 5 20]

The checkouts are those of spro/char-rnn.pytorch and karpathy/nanoGPT. Their models are trained with the settings of
their READMEs: a GRU of two layers with 100 units and Adam at 0.01, and the small Transformer for a CPU, whose cosine
schedule ends with the time. charlstm runs as `charlstm train TEXT --max-time`; start-up, reading and evaluation count
for it, and only training for the others. Each program is trained on the first nine tenths of a text. The loss is that
of the last tenth, all of it: the recurrent networks carry their state along, and nanoGPT reads overlapping windows in
which a character is predicted from at least half a window. char-rnn.pytorch knows the 100 characters of
`string.printable`; its helpers convert others with the package unidecode.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from math import cos, pi
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

TRAIN_SHARE = 0.9
BLOCK = 64
"""Characters of a window of nanoGPT."""

NANO_GPT = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": BLOCK, "dropout": 0.0, "bias": False}
NANO_GPT_BATCH, NANO_GPT_WARMUP, NANO_GPT_RATE, NANO_GPT_MIN_RATE = 12, 100, 1e-3, 1e-4
CHAR_RNN_BATCH, CHAR_RNN_WINDOW, CHAR_RNN_RATE = 100, 200, 0.01

Losses = Iterator[float]
"""The loss after each time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--char-rnn", type=Path)
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 5.0, 20.0])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    times = [60 * each for each in sorted(arguments.minutes)]
    programs: dict[str, Callable[[Path], Losses]] = {
        "charlstm": lambda path: train_charlstm(path, times, arguments.seed)
    }
    if arguments.nanogpt:
        programs["nanoGPT"] = lambda path: train_nano_gpt(arguments.nanogpt, path, times, arguments.seed)
    if arguments.char_rnn:
        programs["char-rnn.pytorch"] = lambda path: train_char_rnn(arguments.char_rnn, path, times, arguments.seed)
    for path in arguments.texts:
        for name, train in programs.items():
            for seconds, loss in zip(times, train(path), strict=True):
                print(f"{path.name:24s} {name:18s} {seconds / 60:4g} min {loss:.4f} nats/character", flush=True)


def train_charlstm(path: Path, times: list[float], seed: int) -> Losses:
    """Train one model for each of the times, and yield its loss."""
    for seconds in times:
        with TemporaryDirectory() as folder:
            options = ["-o", f"{folder}/run", "--max-time", f"{seconds}s", "--seed", str(seed), "-q"]
            subprocess.run(
                [sys.executable, "-m", "charlstm", "train", str(path), *options], check=True, stdout=subprocess.DEVNULL
            )
            evaluation = [sys.executable, "-m", "charlstm", "eval", "-m", f"{folder}/run", "--json"]
            metrics = json.loads(subprocess.run(evaluation, check=True, capture_output=True).stdout)
        yield float(metrics["loss_nats"])


def train_char_rnn(checkout: Path, path: Path, times: list[float], seed: int) -> Losses:
    """Train one model, and yield its loss at each of the times."""
    model_module, helpers = load_from(checkout, "model"), load_from(checkout, "helpers")
    torch.manual_seed(seed)
    text = helpers.read_file(path)[0]
    cut = int(TRAIN_SHARE * len(text))
    validation = helpers.char_tensor(text[cut:])
    model = model_module.CharRNN(100, 100, 100, model="gru", n_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=CHAR_RNN_RATE)
    random = np.random.default_rng(seed)
    elapsed = 0.0
    for seconds in times:
        while elapsed < seconds:
            start = perf_counter()
            places = random.integers(cut - CHAR_RNN_WINDOW, size=CHAR_RNN_BATCH).tolist()
            chunk = torch.stack([helpers.char_tensor(text[p : p + CHAR_RNN_WINDOW + 1]) for p in places])
            states, loss = model.init_hidden(CHAR_RNN_BATCH), torch.zeros(())
            for t in range(CHAR_RNN_WINDOW):
                logits, states = model(chunk[:, t], states)
                loss = loss + cross_entropy(logits, chunk[:, t + 1])
            model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            elapsed += perf_counter() - start
        yield evaluate_char_rnn(model, validation)


@torch.no_grad()
def evaluate_char_rnn(model: Any, ids: Tensor, window: int = 1000) -> float:
    states, nats = model.init_hidden(1), 0.0
    for first in range(0, len(ids) - 1, window):
        targets = ids[first + 1 : first + 1 + window]
        outputs, states = model.rnn(model.encoder(ids[first : first + len(targets), None]), states)
        nats += cross_entropy(model.decoder(outputs[:, 0]), targets, reduction="sum").item()
    return nats / (len(ids) - 1)


def train_nano_gpt(checkout: Path, path: Path, times: list[float], seed: int) -> Losses:
    """Train one model for each of the times, and yield its loss."""
    module = load_from(checkout, "model")
    text = path.read_text("utf-8")
    symbols = sorted(set(text))
    number = {symbol: k for k, symbol in enumerate(symbols)}
    ids = torch.tensor([number[symbol] for symbol in text])
    cut = int(TRAIN_SHARE * len(ids))
    for seconds in times:
        torch.manual_seed(seed)
        with redirect_stdout(sys.stderr):
            model = module.GPT(module.GPTConfig(vocab_size=len(symbols), **NANO_GPT))
            optimizer = model.configure_optimizers(0.1, NANO_GPT_RATE, (0.9, 0.99), "cpu")
        start, steps = perf_counter(), 0
        while (progress := (perf_counter() - start) / seconds) < 1:
            decayed = NANO_GPT_MIN_RATE + 0.5 * (1 + cos(pi * progress)) * (NANO_GPT_RATE - NANO_GPT_MIN_RATE)
            warming = NANO_GPT_RATE * (steps + 1) / (NANO_GPT_WARMUP + 1)
            for group in optimizer.param_groups:
                group["lr"] = warming if steps < NANO_GPT_WARMUP else decayed
            places = torch.randint(cut - BLOCK, (NANO_GPT_BATCH, 1)) + torch.arange(BLOCK)
            _, loss = model(ids[places], ids[places + 1])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            steps += 1
        yield evaluate_nano_gpt(model.eval(), ids[cut:])


@torch.no_grad()
def evaluate_nano_gpt(model: Any, ids: Tensor, batch: int = 64) -> float:
    """Read windows that overlap by half. Of each, except the first, the second half counts."""
    half = BLOCK // 2
    starts = torch.arange(0, len(ids) - BLOCK, half)
    nats, characters = 0.0, 0
    for part in torch.split(starts, batch):
        places = part[:, None] + torch.arange(BLOCK)
        logits, _ = model(ids[places], ids[places + 1])
        losses = cross_entropy(logits.flatten(0, 1), ids[places + 1].flatten(), reduction="none").view(len(part), BLOCK)
        first = int(part[0] == 0)
        nats += losses[first:, half:].sum().item() + losses[:first].sum().item()
        characters += losses[first:, half:].numel() + losses[:first].numel()
    return nats / characters


def load_from(checkout: Path, name: str) -> Any:
    """Import a module of a checkout."""
    sys.modules.pop(name, None)
    sys.path.insert(0, str(checkout.resolve()))
    try:
        return importlib.import_module(name)
    finally:
        del sys.path[0]


if __name__ == "__main__":
    main()
