"""Training with a large vocabulary: characters/s at 65 and at 4,743 symbols (a Chinese novel's).

    python benchmarks/vocabulary.py [--rounds 5] [--json] [--threads 1] [--tie] [--model 2x512] [BATCHxTIME ...]

One step is forward, loss, backward, clip, AdamW, of an LSTM in the precision that charlstm takes on this machine. Four
steps take turns in one process: both vocabularies with charlstm's loss, and both with torch's: logits of all places, a
copy of them in float32, `cross_entropy`. Medians; on one thread of the processor's time, which is what a step takes
where nothing else runs. `ratio` is that of the large vocabulary's characters/s to
the small one's. Peak memory is what two steps add to a process of their own.
"""

# ruff: noqa: E402 - how threads wait and memory is kept is settled before torch is imported
from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter, process_time

from charlstm.runtime import configure_process

configure_process()

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from charlstm.config import ModelConfig
from charlstm.model.device import choose_device
from charlstm.model.language_model import LanguageModel

SMALL, LARGE = 65, 4743

Step = Callable[[], None]


def step_of(model: ModelConfig, symbols: int, batch: int, time: int, head: str) -> Step:
    """A training step on a batch that stays the same; `head` is charlstm or torch."""
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
        loss = chunked() if head == "charlstm" else plain()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return step


def seconds(steps: list[Step], rounds: int) -> list[float]:
    """Median seconds of each step, taken in turn."""
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(rounds + 1):
        for step, found in zip(steps, times, strict=True):
            begun = clock()
            step()
            if turn:
                found.append(clock() - begun)
    return [median(found) for found in times]


def peak_memory(arguments: argparse.Namespace, shape: str, symbols: int, head: str) -> int | None:
    """MB that two steps add to a process of its own, at the peak; None where that cannot be read (Linux only)."""
    if sys.platform != "linux":
        return None
    program = (
        "import re, runpy, sys; b = runpy.run_path(sys.argv[1])\n"
        "memory = lambda name: int(re.search(name + r':\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1e3\n"
        "step = b['step_of'](b['model_of'](sys.argv[2], bool(sys.argv[3])), *map(int, sys.argv[4:7]), sys.argv[7])\n"
        "before = memory('VmRSS'); open('/proc/self/clear_refs', 'w').write('5'); step(); step()\n"
        "print(memory('VmHWM') - before)"
    )
    tie = "tie" if arguments.tie else ""
    command = [sys.executable, "-c", program, __file__, arguments.model, tie, str(symbols), *shape.split("x"), head]
    return round(float(subprocess.run(command, capture_output=True, check=True, text=True).stdout))


def model_of(text: str, tie: bool) -> ModelConfig:
    layers, hidden = map(int, text.split("x"))
    return replace(ModelConfig(), layers=layers, hidden=hidden, head="tied" if tie else "top")


def measure(arguments: argparse.Namespace, shape: str) -> dict[str, object]:
    model, (batch, time) = model_of(arguments.model, arguments.tie), map(int, shape.split("x"))
    sides = [(SMALL, "charlstm"), (LARGE, "charlstm"), (SMALL, "torch"), (LARGE, "torch")]
    steps = [step_of(model, symbols, batch, time, head) for symbols, head in sides]
    small, large, torch_small, torch_large = (batch * time / s for s in seconds(steps, arguments.rounds))
    return {
        "batch": shape,
        f"chars_per_second_{SMALL}": round(small),
        f"chars_per_second_{LARGE}": round(large),
        "ratio": round(large / small, 2),
        f"torch_head_chars_per_second_{SMALL}": round(torch_small),
        f"torch_head_chars_per_second_{LARGE}": round(torch_large),
        "torch_head_ratio": round(torch_large / torch_small, 2),
        "peak_mb": peak_memory(arguments, shape, LARGE, "charlstm"),
        "torch_head_peak_mb": peak_memory(arguments, shape, LARGE, "torch"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=("32x64", "64x128"), metavar="BATCHxTIME")
    parser.add_argument("--model", default="2x512")
    parser.add_argument("--tie", action="store_true")
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
