"""Compare the training speed of charlstm with plain loops over torch's layers in float32.

    python benchmarks/training.py [--rounds 5] [--json] [--engine E] [--precision P] [SHAPE ...]

On a CPU; `gpu.py` does this on a GPU.

A SHAPE is CELL:LAYERSxHIDDEN:BATCHxTIME, such as lstm:2x512:64x128. One step is forward, loss, backward, clipping and
AdamW, with a vocabulary of 65. The plain loop runs in the same process with the same settings for threads and memory
(charlstm/runtime.py) and with the fused AdamW. The default loop is what one writes without such settings, in a process
of its own (plain_torch.py). The three alternate. Prints medians, the ratios to both, the share of the rate at which
this machine multiplies two large matrices in the same precision, and the peak memory of a step of charlstm in a process
of its own, at T and 2T.
"""

# ruff: noqa: E402 - threads and memory are configured before torch is imported
from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

from charlstm.runtime import retain_freed_memory

retain_freed_memory()

import torch
from plain_torch import CORES, EMBEDDING, SYMBOLS, PlainModel
from torch import nn

from charlstm.config import ModelConfig
from charlstm.model.device import Device, choose_device
from charlstm.model.language_model import LanguageModel

SHAPES = (
    "lstm:2x256:64x128",
    "lstm:2x512:64x128",
    "gru:2x256:64x128",
    "gru:2x512:64x128",
    "rnn:2x512:64x128",
    "lstm:2x128:50x50",
)


class Shape(NamedTuple):
    cell: str
    layers: int
    hidden: int
    batch: int
    time: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        cell, *numbers = re.fullmatch(r"([a-z-]+):(\d+)x(\d+):(\d+)x(\d+)", text).groups()  # type: ignore[union-attr]
        return cls(cell, *map(int, numbers))

    @property
    def model(self) -> ModelConfig:
        return replace(ModelConfig(), cell=self.cell, layers=self.layers, hidden=self.hidden, embedding=EMBEDDING)


Step = Callable[[], None]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_step(network: nn.Module, compute_loss: Loss, shape: Shape) -> Step:
    """Return a training step of a network, on constant ids and targets [T, B]."""
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, fused=True)
    ids = torch.randint(SYMBOLS, (shape.time, shape.batch))
    targets = torch.randint(SYMBOLS, (shape.time, shape.batch))

    def step() -> None:
        loss = compute_loss(ids, targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def make_charlstm_step(shape: Shape, device: Device) -> Step:
    network = LanguageModel(shape.model, SYMBOLS, device.engine)

    def loss(ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with device.autocast():
            return network.compute_loss(ids, targets, network.initial_state(shape.batch))[0].smoothed

    return make_step(network, loss, shape)


def make_plain_step(shape: Shape) -> Step:
    network = PlainModel(shape.cell, shape.layers, shape.hidden)
    return make_step(network, network.compute_loss, shape)


@contextmanager
def start_default_step(shape: Shape) -> Iterator[Step]:
    """Start a process that makes a training step with torch's own settings at each call."""
    command = [sys.executable, str(Path(__file__).with_name("plain_torch.py")), *map(str, shape)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        requests, answers = process.stdin, process.stdout

        def step() -> None:
            requests.write(b"\n")
            requests.flush()
            answers.readline()

        yield step
        requests.close()


def time_steps(steps: list[Step], rounds: int) -> list[float]:
    """Return the median seconds of each step; the steps alternate."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(rounds + 1):
        for step, found in zip(steps, times, strict=True):
            start = perf_counter()
            step()
            if turn:
                found.append(perf_counter() - start)
    return [median(found) for found in times]


def count_flop(shape: Shape) -> float:
    """Return the floating-point operations of the matrix products in a step, per character.

    They are 2 forward and 4 backward per weight. The input projection of the first layer, which is done once per row of
    the embedding, is not counted.
    """
    network = LanguageModel(shape.model, SYMBOLS)
    matrices = {name: p.numel() for name, p in network.named_parameters() if p.ndim == 2}
    uncounted = ("embedding.weight", "stack.layers.0.core.weight_ih_l0", "stack.layers.0.core.weight_ih")
    return 6.0 * sum(size for name, size in matrices.items() if name not in uncounted)


def measure_product_rate(shape: Shape, device: Device) -> float:
    """Return the FLOP/s of one large matrix product, [T*B, H] by [H, 4*H]."""
    dtype = torch.bfloat16 if device.precision == "bf16" else torch.float32
    rows, hidden = shape.batch * shape.time, shape.hidden
    a, b = (torch.randn(size).to(dtype) for size in ((rows, hidden), (hidden, 4 * hidden)))

    def product() -> None:
        torch.mm(a, b)

    return 2 * rows * hidden * 4 * hidden / time_steps([product], 7)[0]


def measure_peak_memory(shape: Shape, device: Device) -> int | None:
    """Return the MB that a step adds to a process of its own at its peak, or None if not on Linux."""
    if sys.platform != "linux":
        return None
    program = (
        "import os, re, runpy, sys; sys.path.insert(0, os.path.dirname(sys.argv[1])); b = runpy.run_path(sys.argv[1])\n"
        "memory = lambda name: int(re.search(name + r':\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1e3\n"
        "step = b['make_charlstm_step'](b['Shape'].parse(sys.argv[2]), b['Device'](*sys.argv[3:]))\n"
        "before = memory('VmRSS')\n"
        "open('/proc/self/clear_refs', 'w').write('5'); step(); step(); print(memory('VmHWM') - before)"
    )
    text = f"{shape.cell}:{shape.layers}x{shape.hidden}:{shape.batch}x{shape.time}"
    command = [sys.executable, "-c", program, __file__, text, device.name, device.precision, device.engine]
    return round(float(subprocess.run(command, capture_output=True, check=True, text=True).stdout))


def measure(shape: Shape, device: Device, rounds: int) -> dict[str, object]:
    characters = shape.batch * shape.time
    own_step = make_charlstm_step(shape, device)
    if shape.cell in CORES:
        with start_default_step(shape) as default_step:
            times = time_steps([own_step, make_plain_step(shape), default_step], rounds)
    else:
        times = time_steps([own_step], rounds)
    own, *torchs = (characters / seconds for seconds in times)
    rate = measure_product_rate(shape, device)
    return {
        "model": f"{shape.cell} {shape.layers}x{shape.hidden}",
        "batch": f"{shape.batch}x{shape.time}",
        "device": str(device),
        "chars_per_second": round(own),
        "plain_chars_per_second": round(torchs[0]) if torchs else None,
        "default_chars_per_second": round(torchs[1]) if torchs else None,
        "ratio": round(own / torchs[0], 2) if torchs else None,
        "ratio_to_default": round(own / torchs[1], 2) if torchs else None,
        "product_gflops": round(rate / 1e9),
        "share_of_product_rate": round(own * count_flop(shape) / rate, 2),
        "peak_mb": measure_peak_memory(shape, device),
        "peak_mb_at_twice_the_time": measure_peak_memory(shape._replace(time=2 * shape.time), device),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=SHAPES, metavar="SHAPE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.json:
        rates = f"{'charlstm':>9} {'plain':>9} {'default':>9} {'ratios':>9}"
        print(f"{'':16} {'batch':7} {rates}  of GEMM rate  peak MB at T, 2T")
    for text in arguments.shapes:
        shape = Shape.parse(text)
        device = choose_device(shape.model, "cpu", arguments.precision, arguments.engine)
        row = measure(shape, device, arguments.rounds)
        if arguments.json:
            print(json.dumps(row), flush=True)
        else:
            print(
                f"{row['model']:16} {row['batch']:7} {row['chars_per_second']:9,} "
                f"{row['plain_chars_per_second'] or 0:9,} {row['default_chars_per_second'] or 0:9,} "
                f"{row['ratio'] or 0:4} {row['ratio_to_default'] or 0:4}  "
                f"{row['share_of_product_rate']:4.0%} of {row['product_gflops']:4,} GF/s  "
                f"{row['peak_mb'] or 0:5,} {row['peak_mb_at_twice_the_time'] or 0:5,}   {row['device']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
