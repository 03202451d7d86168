"""The gradient of some streams as a CUDA graph: recorded once, then launched as a whole at every step.

A training step of two layers of 512 units runs thousands of small kernels. The CPU takes longer to launch them one by
one than the GPU takes to run them (benchmarks/gpu.py). A graph reads and writes the same memory at every replay.
Therefore no recorded operation may copy a number to the CPU, or depend on one that does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from charlstm.model.stack import TensorStates

EAGER_STEPS = 2
"""Steps before the recording. They allocate the gradients and let cuDNN and cuBLAS prepare what cannot be recorded."""

ComputeGradient = Callable[[Tensor, TensorStates], tuple[Tensor, TensorStates]]
"""Given ids [T+1+A, B] and the states before them, adds to the gradients; returns the loss and the states after."""


class RecordedGradient:
    """`compute`, run on a GPU. It must add to gradients that stay where they are.

    ids: pinned memory of the CPU [T+1+A, B], from which each call copies them while the GPU works.
    pool: the memory of the graph, which those that are never replayed at the same time can share.
    """

    def __init__(self, compute: ComputeGradient, shape: tuple[int, ...], states: TensorStates, pool: Any) -> None:
        self.compute, self.pool = compute, pool
        self.pinned = torch.empty(shape, dtype=torch.int64, pin_memory=True)
        self.ids = torch.empty(shape, dtype=torch.int64, device="cuda")
        self.states = [tuple(part.clone() for part in state) for state in states]
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, ids: Tensor) -> Tensor:
        """Compute the gradient for these ids from `states`, which become those after them. Returns the loss.

        It is valid until the next call.
        """
        self.pinned.copy_(ids)
        self.ids.copy_(self.pinned, non_blocking=True)
        if self.calls < EAGER_STEPS:
            self.calls += 1
            return self.run()
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            # NCCL's watchdog, another thread, may use the GPU meanwhile.
            with torch.cuda.graph(self.graph, pool=self.pool, capture_error_mode="thread_local"):
                self.loss = self.run()
        self.graph.replay()
        return self.loss

    def run(self) -> Tensor:
        loss, after = self.compute(self.ids, self.states)
        self.load_states(after)
        return loss

    def load_states(self, states: TensorStates) -> None:
        for own, new in zip(self.states, states, strict=True):
            for part, new_part in zip(own, new, strict=True):
                part.copy_(new_part)
