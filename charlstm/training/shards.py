"""The gradient of a batch, computed in shards: by several processes at once, or by one after another.

The loss of a batch is the mean over its characters, and so are the penalties. It is the sum of the losses of its
shards, each times the share of the streams that the shard has. Every shard draws the random masks of the whole batch.
So the gradient does not depend on how the batch is divided, except for the order of the sums: that of the shards, not
of the processes that are done first.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlstm.config import Config
from charlstm.data.batches import Window
from charlstm.model.bidirectional import Model
from charlstm.model.device import Device
from charlstm.model.dropout import part_of_batch
from charlstm.model.language_model import detach_states
from charlstm.model.stack import TensorStates
from charlstm.training.cuda_graph import RecordedGradient
from charlstm.training.objective import total_loss
from charlstm.workers import Workers, allocate_shared, divide

StateArrays = list[tuple[NDArray[Any], ...]]
"""The state of every layer as arrays [B, H]."""

RandomState = dict[str, NDArray[np.uint8]]
"""The states of torch's random generators, by device."""


class Shard:
    """Some of the streams of a batch: their states, and the gradient of their part of the loss."""

    def __init__(self, model: Model, config: Config, device: Device, streams: slice, graph_pool: Any = None) -> None:
        self.model, self.config, self.device, self.streams = model, config, device, streams
        self.graph_pool = graph_pool
        self.size = streams.stop - streams.start
        self.share = self.size / config.training.batch_size
        self.states: TensorStates = model.initial_state(self.size)
        self.recorded: RecordedGradient | None = None

    def backpropagate(self, window: Window, *, reset: bool) -> float:
        """Add the gradient of this shard's part of the loss to those of the parameters.

        window: the ids [T+1+A, B] of all streams.
        reset: whether to start from the initial state.

        Returns this shard's part of the loss in nats per character.
        """
        if reset:
            self.set_states(self.model.initial_state(self.size))
        ids = torch.from_numpy(np.ascontiguousarray(window[:, self.streams]))
        if self.device.name == "cuda":
            nats = self.record(ids.shape)(ids)
        else:
            nats, self.states = self.compute(ids.to(self.device.name), self.states)
        return float(self.share * nats.item())

    def compute(self, ids: Tensor, states: TensorStates) -> tuple[Tensor, TensorStates]:
        """Add to the gradients, given ids [T+1+A, B] and the states before them. Returns the loss and those after."""
        with self.device.autocast(), part_of_batch(self.streams.start, self.config.training.batch_size):
            objectives, states = self.model.compute_objectives(ids, states)
        loss = total_loss(objectives, self.config)
        (loss if self.share == 1 else loss * self.share).backward()
        return objectives[0].losses.nats, detach_states(states)

    def record(self, shape: torch.Size) -> RecordedGradient:
        """Return `compute` as it runs on a GPU. Its states are this shard's from then on."""
        if self.recorded is None:
            self.recorded = RecordedGradient(self.compute, shape, self.states, self.graph_pool)
            self.states = self.recorded.states
        return self.recorded

    def set_states(self, states: TensorStates) -> None:
        if self.recorded is None:
            self.states = states
        else:
            self.recorded.load_states(states)

    def export_states(self) -> StateArrays:
        return [tuple(part.cpu().numpy().copy() for part in state) for state in self.states]

    def load_states(self, states: StateArrays) -> None:
        """Load the states of all streams, of which this shard takes its own."""
        self.set_states(
            [
                tuple(torch.from_numpy(part[self.streams].copy()).to(self.device.name) for part in state)
                for state in states
            ]
        )


class ShardSequence:
    """The streams that one process reads: `training.accumulate` shards, one after the other."""

    def __init__(self, model: Model, config: Config, device: Device, streams: slice) -> None:
        parts = divide_slice(streams, min(config.training.accumulate, streams.stop - streams.start))
        pool = torch.cuda.graph_pool_handle() if device.name == "cuda" else None
        self.shards = [Shard(model, config, device, part, pool) for part in parts]

    def backpropagate(self, window: Window, *, reset: bool) -> float:
        """Add the gradients of the shards as `Shard.backpropagate` does. Returns their part of the loss."""
        first, *others = self.shards
        random = random_state() if others else {}
        loss = first.backpropagate(window, reset=reset)
        for shard in others:
            set_random_state(random)  # each draws the masks of the whole batch
            loss += shard.backpropagate(window, reset=reset)
        return loss

    def export_states(self) -> StateArrays:
        """Return the states of these streams."""
        return concatenate_states([shard.export_states() for shard in self.shards])

    def load_states(self, states: StateArrays) -> None:
        """Load the states of all streams, of which these shards take their own."""
        for shard in self.shards:
            shard.load_states(states)


def divide_slice(streams: slice, parts: int) -> list[slice]:
    """Divide some streams into consecutive parts of nearly equal size."""
    first = streams.start
    return [slice(first + part.start, first + part.stop) for part in divide(streams.stop - first, parts)]


def concatenate_states(parts: Sequence[StateArrays]) -> StateArrays:
    """Return the states of all streams, given those of consecutive parts."""
    return [tuple(map(np.concatenate, zip(*layers, strict=True))) for layers in zip(*parts, strict=True)]


def random_state() -> RandomState:
    """Return the states of torch's random generators, which dropout draws from."""
    state = {"cpu": torch.get_rng_state().numpy()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().numpy()
    return state


def set_random_state(state: RandomState) -> None:
    """Load what `random_state` returned."""
    torch.set_rng_state(torch.from_numpy(state["cpu"].copy()))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.from_numpy(state["cuda"].copy()))


class ShardedGradient:
    """Computes the gradient of the streams of this rank in `processes` processes, of which this one has the first ones.

    The others are started at the first step. From then on the parameters are in memory that all processes share.
    """

    def __init__(self, model: Model, config: Config, device: Device, streams: slice, processes: int) -> None:
        self.model, self.config, self.device, self.processes = model, config, device, processes
        parts = divide_slice(streams, processes)
        self.shards = [ShardSequence(model, config, device, part) for part in parts]
        self.workers: Workers | None = None
        self.gradients: list[list[Tensor]] = []  # of each worker, in the order of the parameters

    def compute(self, window: Window, *, reset: bool) -> float:
        """Set the gradient of every parameter to that of these streams' part of the loss, which is returned.

        window: ids [T+1+A, B].
        reset: whether the streams start from their initial state.
        """
        self.model.zero_grad(set_to_none=self.device.name != "cuda")  # recorded steps add to them where they are
        if self.processes == 1:
            return self.shards[0].backpropagate(window, reset=reset)
        if self.workers is None:
            self.start(window)
        assert self.workers is not None
        self.window[:] = window
        self.workers.send(("step", reset))
        loss = self.shards[0].backpropagate(window, reset=reset)
        loss += sum(self.workers.receive(), 0.0)
        own = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        for theirs in self.gradients:
            torch._foreach_add_(own, theirs)
        return loss

    @property
    def pids(self) -> list[int]:
        """The ids of the other processes."""
        return self.workers.pids if self.workers else []

    def use_core(self) -> AbstractContextManager[None]:
        """Return the context of a step: the core of this process, or one that another process lends to it."""
        return self.workers.cores.use_core(0) if self.workers else nullcontext()

    def start(self, window: Window) -> None:
        """Start the other processes. Raises CharlstmError if that fails."""
        share_parameters(self.model)
        self.window = allocate_shared(window.shape, window.dtype)
        self.gradients = [share_like(list(self.model.parameters())) for _ in self.shards[1:]]
        parts = zip(self.shards[1:], self.gradients, strict=True)
        self.workers = Workers(
            [ShardWorker(self.model, shards, self.window, gradients).answer for shards, gradients in parts]
        )

    def export_states(self) -> StateArrays:
        """Return the states of the streams of this rank."""
        own = [shards.export_states() for shards in self.shards]
        if self.workers is not None:
            self.workers.send(("states", None))
            own[1:] = self.workers.receive()
        return concatenate_states(own)

    def load_states(self, states: StateArrays, random: RandomState) -> None:
        """Load the states of all streams, and those of the random generators.

        Raises ValueError if one has another shape.
        """
        expected = self.model.initial_state(self.config.training.batch_size)
        for layers in zip(states, expected, strict=True):
            if any(new.shape != old.shape for new, old in zip(*layers, strict=True)):
                raise ValueError("a hidden state has another shape")
        set_random_state(random)
        for shards in self.shards:
            shards.load_states(states)
        if self.workers is not None:
            self.workers.send(("load states", (states, random)))
            self.workers.receive()

    def close(self) -> None:
        """End the other processes."""
        if self.workers is not None:
            self.workers.close()


class ShardWorker:
    """What a process other than the first does: the gradient of its streams, in memory that it shares with the first.

    Its random generators are in the state of those of the first, from which it was forked: every process draws the
    masks of the whole batch.
    """

    def __init__(self, model: Model, shards: ShardSequence, window: Window, gradients: list[Tensor]) -> None:
        self.model, self.shards, self.window, self.gradients = model, shards, window, gradients

    def answer(self, request: tuple[str, Any]) -> Any:
        name, value = request
        if name == "step":
            return self.step(reset=value)
        if name == "states":
            return self.shards.export_states()
        assert name == "load states"
        states, random = value
        set_random_state(random)
        return self.shards.load_states(states)

    def step(self, *, reset: bool) -> float:
        self.model.zero_grad()
        loss = self.shards.backpropagate(self.window, reset=reset)
        found = [
            (shared, parameter.grad)
            for shared, parameter in zip(self.gradients, self.model.parameters(), strict=True)
            if parameter.grad is not None
        ]
        torch._foreach_copy_([shared for shared, _ in found], [gradient for _, gradient in found])
        return loss


def share_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of zeros of the same shapes, float32, in memory that is shared with later workers."""
    ends = list(accumulate(tensor.numel() for tensor in tensors))
    flat = torch.from_numpy(allocate_shared((ends[-1],), np.float32))
    return [flat[end - tensor.numel() : end].view(tensor.shape) for tensor, end in zip(tensors, ends, strict=True)]


@torch.no_grad()
def share_parameters(model: Model) -> None:
    """Move the parameters of a model to memory that is shared with later workers."""
    parameters = list(model.parameters())
    for parameter, shared in zip(parameters, share_like(parameters), strict=True):
        parameter.data = shared.copy_(parameter)
