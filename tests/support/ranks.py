"""Several ranks of one training, as forks of the test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from charlstm.model.ranks import Ranks
from charlstm.rendezvous import Rendezvous

Value = TypeVar("Value")


def run_ranks(size: int, function: Callable[[Ranks], Value]) -> list[Value]:
    """Call a function on each of some ranks, and return what it returns. Raises what one of them raises."""
    results = try_ranks(size, function)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def try_ranks(size: int, function: Callable[[Ranks], Any]) -> list[Any]:
    """Call a function on each of some ranks, and return what it returns, or the exception that it raises."""
    context = get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "store")
        pipes = [context.Pipe(duplex=False) for _ in range(size)]

        def run(rank: int) -> None:
            torch.set_num_threads(1)
            result: Any
            try:
                with Ranks.join(Rendezvous(rank, size, rank, size, 0, file, "", 0, False)) as ranks:
                    result = function(ranks)
            except Exception as error:
                result = error
            pipes[rank][1].send(result)

        processes = [context.Process(target=run, args=(rank,)) for rank in range(size)]
        for process in processes:
            process.start()
        results = [receiver.recv() for receiver, _ in pipes]
        for process in processes:
            process.join()
    return results
