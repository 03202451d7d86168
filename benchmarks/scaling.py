"""Training speed on several processes: torch.distributed, next to the forks of one process and to a single core.

    python benchmarks/scaling.py [--sizes 1x384:16x64 2x512:64x128] [--ranks 2] [--seconds 5] [--rounds 3] [--json]
    python benchmarks/scaling.py --predict [--gigabits 1 10 100]

A size is layers x units : streams x window. In each round every variant trains for some seconds, one after the other:
`one core`; `forks`, one rank whose forks use all cores (what `charlstm train` does); `ranks`, as many ranks of one
core each (what `--processes` and torchrun do); `ddp`, the same with `DistributedDataParallel`, which reduces the
gradients in buckets during the backward pass; and `unbound`, ranks that may run on any core. Medians over the rounds.
The efficiency is the speed of `ranks` as a share of that of `one core` times their number. `message` is the time of one
reduction alone, on idle ranks.

--predict prints what a model on paper expects of 2 to 1,000 ranks, each with half of a size's streams. A step of W
ranks takes t + 2 (W - 1) (S / (W b) + l) seconds: t is that of one core with its own streams, measured here; then a
ring all-reduce (Patarasuk and Yuan 2009) sends S bytes of gradients in 2 (W - 1) parts over links of b bytes/s and l
seconds of latency. `two` is the same with the message of two ranks on this machine as measured, next to their speed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from charlstm.config import Config, ModelConfig, TrainingConfig
from charlstm.data.corpus import Corpus
from charlstm.model.language_model import detach_states
from charlstm.model.ranks import Ranks
from charlstm.rendezvous import Rendezvous
from charlstm.runtime import bind_to_cores, retain_freed_memory
from charlstm.training.objective import total_loss
from charlstm.training.trainer import Trainer

SIZES = ("1x128:16x32", "1x384:16x64", "2x256:64x128", "2x512:64x128")
CHARACTERS = 2_000_000
SYMBOLS = 80
MESSAGES = 20
RANKS = (2, 8, 64, 1000)
LATENCY = 50e-6  # seconds: TCP in one data centre


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--gigabits", type=float, nargs="+", default=(1, 10, 100), help="bandwidths, in Gbit/s")
    arguments = parser.parse_args()
    retain_freed_memory()  # as the command does
    for size in arguments.sizes:
        if arguments.predict:
            result = predict_size(size, arguments.seconds, arguments.gigabits)
        else:
            result = measure_size(size, arguments.ranks, arguments.seconds, arguments.rounds)
        print(json.dumps(result) if arguments.json else "  ".join(f"{k} {v}" for k, v in result.items()), flush=True)


def measure_size(size: str, count: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Return the characters/s of every variant."""
    one_core, all_cores = make_config(size, 1), make_config(size, count)
    variants: dict[str, Callable[[], float]] = {
        "one core": lambda: run_ranks(1, lambda ranks: measure_trainer(ranks, one_core, seconds)),
        "forks": lambda: run_ranks(1, lambda ranks: measure_trainer(ranks, all_cores, seconds)),
        "ranks": lambda: run_ranks(count, lambda ranks: measure_trainer(ranks, one_core, seconds)),
        "ddp": lambda: run_ranks(count, lambda ranks: measure_ddp(ranks, one_core, seconds)),
        "unbound": lambda: run_ranks(count, lambda ranks: measure_trainer(ranks, one_core, seconds), bind=False),
    }
    speeds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            speeds[name].append(run())
    found = {name: round(median(values)) for name, values in speeds.items()}
    message = run_ranks(count, lambda ranks: measure_message(ranks, one_core))
    return {
        "size": size,
        **found,
        "efficiency": round(found["ranks"] / (count * found["one core"]), 3),
        "ranks / forks": round(found["ranks"] / found["forks"], 3),
        "message_ms": round(1000 * message, 2),
    }


def predict_size(size: str, seconds: float, gigabits: Sequence[float]) -> dict[str, Any]:
    """Return the predicted characters/s of many ranks, and both the predicted and the measured ones of two."""
    config = make_config(size, 1)
    window, streams = config.training.seq_len, config.training.batch_size // 2
    half = replace(config, training=replace(config.training, batch_size=streams))
    step = streams * window / run_ranks(1, lambda ranks: measure_trainer(ranks, half, seconds))
    message = run_ranks(2, lambda ranks: measure_message(ranks, config))
    parameters = round(run_ranks(1, lambda ranks: Trainer(make_corpus(), config, ranks).parameter_count))
    found: dict[str, Any] = {
        "size": size,
        "parameters": parameters,
        "step_ms": round(1000 * step, 1),
        "two": round(2 * streams * window / (step + message)),
        "two measured": round(run_ranks(2, lambda ranks: measure_trainer(ranks, config, seconds))),
    }
    for rate in gigabits:
        for count in RANKS:
            seconds_of_link = 4 * parameters / count / (rate * 1e9 / 8) + LATENCY
            expected = step + 2 * (count - 1) * seconds_of_link
            found[f"{count} at {rate:g} Gbit/s"] = round(count * streams * window / expected)
    return found


def make_config(size: str, threads: int) -> Config:
    model, batch = size.split(":")
    layers, hidden = map(int, model.split("x"))
    streams, window = map(int, batch.split("x"))
    return Config(
        ModelConfig(layers=layers, hidden=hidden),
        training=TrainingConfig(batch_size=streams, seq_len=window, threads=threads, device="cpu"),
    )


def make_corpus() -> Corpus:
    random = np.random.default_rng(1)
    return Corpus.from_text("".join(chr(0x41 + k) for k in random.integers(0, SYMBOLS, CHARACTERS)))


def measure_trainer(ranks: Ranks, config: Config, seconds: float) -> float:
    """Return the characters/s of a trainer: a median over its steps."""
    trainer = Trainer(make_corpus(), config, ranks)
    speed = time_steps(ranks, lambda: trainer.step(1e-4), config, seconds)
    trainer.close()
    return speed


class WindowLoss(nn.Module):
    """The loss of a window as a `forward`, which `DistributedDataParallel` wraps."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.model, self.config, self.device = trainer.model, trainer.config, trainer.device

    def forward(self, ids: Tensor, states: Any) -> tuple[Tensor, Any]:
        with self.device.autocast():
            objectives, states = self.model.compute_objectives(ids, states)
        return total_loss(objectives, self.config), states


def measure_ddp(ranks: Ranks, config: Config, seconds: float) -> float:
    """Return the characters/s with `DistributedDataParallel` in the place of our reduction."""
    trainer = Trainer(make_corpus(), config, ranks)
    wrapped = DistributedDataParallel(WindowLoss(trainer), gradient_as_bucket_view=True)
    streams = ranks.divide(config.training.batch_size)
    states = trainer.model.initial_state(streams.stop - streams.start)

    def step() -> None:
        nonlocal states
        window = torch.from_numpy(np.ascontiguousarray(trainer.batches.next_window()[:, streams]))
        trainer.model.zero_grad()
        loss, states = wrapped(window, states)
        loss.backward()
        states = detach_states(states)
        trainer.clip_gradients()
        trainer.optimizer.step(1e-4)
        trainer.average.update()

    return time_steps(ranks, step, config, seconds)


def time_steps(ranks: Ranks, step: Callable[[], object], config: Config, seconds: float) -> float:
    for _ in range(3):  # compile, start processes and map memory
        step()
    times: list[float] = []
    while ranks.from_first(lambda: sum(times) < seconds):
        began = perf_counter()
        step()
        times.append(perf_counter() - began)
    return config.training.batch_size * config.training.seq_len / median(times)


def measure_message(ranks: Ranks, config: Config) -> float:
    """Return the seconds of one reduction of the gradients."""
    model = Trainer(make_corpus(), config, ranks).model
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    times = []
    for _ in range(MESSAGES):
        ranks.sum_numbers([0.0])  # wait for the others
        began = perf_counter()
        ranks.sum_gradients(model, [0.0])
        times.append(perf_counter() - began)
    return median(times)


def run_ranks(size: int, function: Callable[[Ranks], float], *, bind: bool = True) -> float:
    """Call a function on each of some ranks, which are forks of this process, and return what it returns on the first.

    They meet in a file.

    bind: whether each has a core of its own, as with the command.
    """
    context = get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        receiver, sender = context.Pipe(duplex=False)

        def run(rank: int) -> None:
            if size > 1:
                torch.set_num_threads(1)  # as the launchers do: between steps, too
                os.environ["OMP_NUM_THREADS"] = "1"
                if bind:
                    bind_to_cores(rank, size)
            with Ranks.join(Rendezvous(rank, size, rank, size, 0, f"{folder}/rendezvous", "", 0, False)) as ranks:
                result = function(ranks)
            if rank == 0:
                sender.send(result)

        processes = [context.Process(target=run, args=(rank,)) for rank in range(size)]
        for process in processes:
            process.start()
        found: float = receiver.recv()
        for process in processes:
            process.join()
    return found


if __name__ == "__main__":
    main()
