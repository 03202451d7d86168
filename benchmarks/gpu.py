"""Compare the training speed of charlstm on a GPU with a plain loop over torch's layers.

    python benchmarks/gpu.py [--rounds 9] [--time 128] [SIZE:STREAMS ...]

A SIZE is CELL:LAYERSxHIDDEN, such as lstm:2x512. A step reads windows of the text, and is forward, loss, backward,
clipping, AdamW and the check that the loss is finite, with a vocabulary of 65. The sides alternate in one process:

    charlstm        `train`, with its choice of precision and engine
    launched        the same without recording the steps as CUDA graphs
    plain, mixed    one `nn.LSTM` of all layers under autocast with bfloat16 (cuDNN then computes in float16)
    plain           the same in float32, in which cuDNN multiplies with TF32

Prints medians in characters/s, and the peak memory of charlstm's steps.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np
import torch
from plain_torch import CORES, SYMBOLS, PlainModel
from torch import nn

from charlstm.config import Config, ModelConfig, TrainingConfig
from charlstm.data.corpus import Corpus
from charlstm.training.trainer import Trainer

SIZES = [f"lstm:{size}:{streams}" for size in ("2x512", "3x1024") for streams in (64, 256, 1024)]
OTHERS = [f"{cell}:2x512:64" for cell in ("gru", "rnn", "lstm-peephole", "lstm-norm", "mlstm")]
WARMUP = 5

Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=SIZES + OTHERS, metavar="SIZE:STREAMS")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--time", type=int, default=128)
    arguments = parser.parse_args()
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    print(f"{'':24}{'charlstm':>12}{'launched':>12}{'plain, mixed':>14}{'plain':>12}{'MB':>8}")
    for text in arguments.sizes:
        cell, layers, hidden, streams = re.fullmatch(r"([a-z-]+):(\d+)x(\d+):(\d+)", text).groups()  # type: ignore[union-attr]
        model = replace(ModelConfig(), cell=cell, layers=int(layers), hidden=int(hidden))
        measure(text, model, int(streams), arguments.time, arguments.rounds)


def measure(name: str, model: ModelConfig, streams: int, time: int, rounds: int) -> None:
    random = np.random.default_rng(0)
    corpus = Corpus.from_text("".join(map(chr, random.integers(0x41, 0x41 + SYMBOLS, streams * time * 8))))
    training = TrainingConfig(batch_size=streams, seq_len=time, segment_len=8 * time, device="cuda")
    sides: dict[str, Step] = {}
    torch.cuda.reset_peak_memory_stats()
    trainers = [Trainer(corpus, Config(model, training=training)) for _ in range(2)]
    sides["charlstm"], sides["launched"] = (partial(take_step, trainer) for trainer in trainers)
    for _ in range(WARMUP):
        sides["charlstm"]()
    memory = torch.cuda.max_memory_allocated()
    if model.cell in CORES:
        sides["mixed"] = make_plain_step(model, streams, time, mixed=True)
        sides["plain"] = make_plain_step(model, streams, time, mixed=False)
    sides["launched"]()
    trainers[1].gradient.shards[0].shards[0].recorded.calls = -(10**9)  # type: ignore[union-attr]
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds + WARMUP):
        for side, step in sides.items():
            start = perf_counter()
            step()
            if turn >= WARMUP:
                times[side].append(perf_counter() - start)
    rates = [f"{streams * time / median(times[side]):,.0f}" if side in times else "" for side in sides]
    widths = (12, 12, 14, 12)
    cells = "".join(f"{rate:>{width}}" for rate, width in zip(rates + [""] * (4 - len(rates)), widths, strict=True))
    print(f"{name:24}{cells}{memory / 1e6:8,.0f}", flush=True)
    for trainer in trainers:
        trainer.close()


def take_step(trainer: Trainer) -> None:
    trainer.step(1e-4)
    torch.cuda.synchronize()


def make_plain_step(model: ModelConfig, streams: int, time: int, mixed: bool) -> Step:
    network = PlainModel(model.cell, model.layers, model.hidden).cuda()
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, fused=True)
    window = torch.randint(SYMBOLS, (time + 1, streams))

    def step() -> None:
        ids = window.cuda(non_blocking=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            loss = network.compute_loss(ids[:-1], ids[1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        loss.item()
        torch.cuda.synchronize()

    return step


if __name__ == "__main__":
    main()
