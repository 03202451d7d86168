"""Measure training speed with a large vocabulary: characters/s with 65 and with 4,743 symbols (a Chinese novel).

    python benchmarks/vocabulary.py [--rounds 5] [--json] [--threads 1] [--head top] [--model 2x512] [BATCHxTIME ...]

A step is forward, loss, backward, clipping and AdamW, of an LSTM in the precision that charlstm chooses on this
machine. Four steps take turns in one process: both vocabularies with charlstm's chunked loss, and both with torch's
(logits of all positions, a float32 copy of them, `cross_entropy`). Prints medians; with one thread, of processor time,
which equals the time of a step on an idle machine. `ratio` is the speed with the large vocabulary divided by the speed
with the small one. Peak memory is what two steps add to a process of their own.
"""

# ruff: noqa: E402 - threads and memory have to be configured before torch is imported
from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time

from charlstm.runtime import retain_freed_memory

retain_freed_memory()

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from charlstm.config import ModelConfig
from charlstm.model.device import choose_device
from charlstm.model.language_model import LanguageModel

SMALL, LARGE = 65, 4743

Step = Callable[[], None]


def make_step(model: ModelConfig, symbols: int, batch: int, time: int, loss: str) -> Step:
    """Return a training step on one fixed batch; `loss` is charlstm or torch."""
    device = choose_device(model, "cpu")
    network = LanguageModel(model, symbols, device.engine)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    ids, targets = torch.randint(symbols, (2, time, batch))

    def chunked() -> Tensor:
        with device.autocast():
            return network.compute_loss(ids, targets, network.initial_state(batch))[0].smoothed

    def plain() -> Tensor:
        with device.autocast():
            logits, _ = network(ids, network.initial_state(batch))
        return cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def step() -> None:
        value = chunked() if loss == "charlstm" else plain()
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return step


def measure_seconds(steps: list[Step], rounds: int) -> list[float]:
    """Return the median seconds of each step; the steps take turns."""
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(rounds + 1):  # the first one warms up
        for step, seconds in zip(steps, times, strict=True):
            start = clock()
            step()
            if turn:
                seconds.append(clock() - start)
    return [median(seconds) for seconds in times]


def measure_memory(arguments: argparse.Namespace, shape: str, symbols: int, loss: str) -> int | None:
    """Return the peak memory in MB that two steps add to a new process; None except on Linux."""
    if sys.platform != "linux":
        return None
    program = (
        "import re, runpy, sys; b = runpy.run_path(sys.argv[1])\n"
        "memory = lambda name: int(re.search(name + r':\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1e3\n"
        "step = b['make_step'](b['parse_model'](sys.argv[2], sys.argv[3]), *map(int, sys.argv[4:7]), sys.argv[7])\n"
        "before = memory('VmRSS'); open('/proc/self/clear_refs', 'w').write('5'); step(); step()\n"
        "print(memory('VmHWM') - before)"
    )
    model = (arguments.model, arguments.head)
    command = [sys.executable, "-c", program, __file__, *model, str(symbols), *shape.split("x"), loss]
    return round(float(subprocess.run(command, capture_output=True, check=True, text=True).stdout))


def parse_model(shape: str, head: str) -> ModelConfig:
    layers, hidden = map(int, shape.split("x"))
    return ModelConfig(layers=layers, hidden=hidden, head=head)


def measure(arguments: argparse.Namespace, shape: str) -> dict[str, object]:
    model, (batch, time) = parse_model(arguments.model, arguments.head), map(int, shape.split("x"))
    sides = [(SMALL, "charlstm"), (LARGE, "charlstm"), (SMALL, "torch"), (LARGE, "torch")]
    steps = [make_step(model, symbols, batch, time, loss) for symbols, loss in sides]
    small, large, torch_small, torch_large = (batch * time / s for s in measure_seconds(steps, arguments.rounds))
    return {
        "batch": shape,
        f"chars_per_second_{SMALL}": round(small),
        f"chars_per_second_{LARGE}": round(large),
        "ratio": round(large / small, 2),
        f"torch_head_chars_per_second_{SMALL}": round(torch_small),
        f"torch_head_chars_per_second_{LARGE}": round(torch_large),
        "torch_head_ratio": round(torch_large / torch_small, 2),
        "peak_mb": measure_memory(arguments, shape, LARGE, "charlstm"),
        "torch_head_peak_mb": measure_memory(arguments, shape, LARGE, "torch"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=("32x64", "64x128"), metavar="BATCHxTIME")
    parser.add_argument("--model", default="2x512")
    parser.add_argument("--head", default="top", choices=("top", "all", "tied"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.json:
        print(f"{'':7} {'V=65':>7} {'V=4743':>7} ratio  with torch's head: V=65, V=4743, ratio  peak MB, torch's head")
    for shape in arguments.shapes:
        row = measure(arguments, shape)
        if arguments.json:
            print(json.dumps(row), flush=True)
            continue
        _, small, large, ratio, torch_small, torch_large, torch_ratio, peak, torch_peak = row.values()
        print(
            f"{shape:7} {small:7,} {large:7,}  {ratio:4}  {torch_small:25,} {torch_large:7,}  {torch_ratio:5}  "
            f"{peak or 0:7,} {torch_peak or 0:7,}",
            flush=True,
        )


if __name__ == "__main__":
    main()
