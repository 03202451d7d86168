"""The processes that train one model together, on one machine or several, and how they communicate: torch.distributed.

Each has a rank. All have the whole model, and each reads some of the streams. After every backward pass the gradients
are added up in one message. `DistributedDataParallel` overlaps that with the backward pass, which is faster for most
sizes (benchmarks/scaling.py), but would have to wrap losses that do not go through `forward`, and could not carry what
the ranks agree on in the same message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from secrets import token_hex
from time import monotonic, sleep
from typing import Any, TypeVar
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor, nn

from charlstm.errors import CharlstmError, ReportedError
from charlstm.rendezvous import Rendezvous

TIMEOUT = timedelta(minutes=2)
"""How long a process waits for the others before it gives up."""

MEETING_POLL_SECONDS = 0.02
"""Seconds between two looks at who has come."""

Sent = TypeVar("Sent")


class Ranks:
    """The processes that train together, of which this one has a rank. Without others, nothing is communicated.

    rank: from 0 to size - 1.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    @contextmanager
    def join(cls, rendezvous: Rendezvous) -> Iterator[Ranks]:
        """Meet the other processes, and leave them at the end of the block.

        Raises CharlstmError if they do not come within `TIMEOUT`.
        """
        if rendezvous.size == 1:
            yield cls()
            return
        if torch.cuda.is_available():
            torch.cuda.set_device(rendezvous.local_rank % torch.cuda.device_count())
        connect(rendezvous)
        try:
            yield cls(rendezvous.rank, rendezvous.size)
        finally:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes files."""
        return self.rank == 0

    def divide(self, count: int) -> slice:
        """Return this rank's part of `count` streams, which the number of ranks divides."""
        own = count // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def sum_gradients(self, model: nn.Module, numbers: Sequence[float]) -> list[float]:
        """Add up the gradients of all ranks, and these numbers with them, in one message. Returns the sums."""
        if self.size == 1:
            return [*numbers]
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        like = gradients[0]
        last = torch.tensor(numbers, dtype=like.dtype, device=like.device)
        message = torch.cat([*(gradient.flatten() for gradient in gradients), last])
        with explain_lost_connection():
            dist.all_reduce(message)
        *sums, totals = torch.split(message, [*(gradient.numel() for gradient in gradients), len(last)])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(sums, gradients, strict=True)])
        return [float(total) for total in totals.tolist()]

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums of these numbers over all ranks."""
        if self.size == 1:
            return [*numbers]
        sums = torch.tensor(numbers, dtype=torch.float64)
        with explain_lost_connection():
            dist.all_reduce(sums)
        return [float(total) for total in sums.tolist()]

    def from_first(self, compute: Callable[[], Sent]) -> Sent:
        """Return what the first rank computes. Its CharlstmError is raised by all, in the others as ReportedError."""
        if self.size == 1:
            return compute()
        message: list[Any] = [None, None]
        error: CharlstmError | None = None
        if self.is_first:
            try:
                message[0] = compute()
            except CharlstmError as found:
                error, message[1] = found, (found.message, found.exit_code)
        with explain_lost_connection():
            dist.broadcast_object_list(message)
        if error is not None:
            raise error
        if message[1] is not None:
            raise ReportedError(*message[1])
        value: Sent = message[0]
        return value

    def on_all(self, compute: Callable[[], Sent]) -> Sent:
        """Return what this rank computes. If that fails on any, the first of them raises its error, the others too.

        In the others it is a ReportedError. Nothing may be communicated meanwhile.
        """
        if self.size == 1:
            return compute()
        value, error = None, None
        try:
            value = compute()
        except CharlstmError as found:
            error = found
        statuses: list[Any] = [None] * self.size
        with explain_lost_connection():
            dist.all_gather_object(statuses, error and error.exit_code)
        failed = [rank for rank, status in enumerate(statuses) if status is not None]
        if failed:
            if failed[0] == self.rank and error is not None:
                raise error
            raise ReportedError("another rank failed", statuses[failed[0]])
        return value  # type: ignore[return-value]

    def gather(self, value: Sent) -> list[Sent]:
        """Return the values of all ranks, in order, on the first one; on the others their own."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_first else None
        with explain_lost_connection():
            dist.gather_object(value, values)
        return [value] if values is None else values

    def check_equal(self, values: Mapping[str, object]) -> None:
        """Raise CharlstmError on every rank unless these values, by what they are, are the same on all."""
        if self.size == 1:
            return
        found: list[Any] = [None] * self.size
        with explain_lost_connection():
            dist.all_gather_object(found, dict(values))
        different = [(rank, name) for rank, own in enumerate(found) for name in values if own[name] != found[0][name]]
        for rank, name in different[:1]:
            message = f"{name} of rank {rank} is not that of rank 0"
            if self.is_first:
                raise CharlstmError(message, "start all of them with the same command")
            raise ReportedError(message, CharlstmError.exit_code)


def connect(rendezvous: Rendezvous) -> None:
    """Initialize torch.distributed. Raises CharlstmError if the others do not come, or their address is taken."""
    # NCCL needs a GPU for each process; gloo also adds up gradients that are on a GPU which processes share.
    has_own_gpu = torch.cuda.is_available() and rendezvous.local_size <= torch.cuda.device_count()
    backend = "cpu:gloo,cuda:nccl" if has_own_gpu and dist.is_nccl_available() else "gloo"
    rank, size = rendezvous.rank, rendezvous.size
    try:
        store = open_store(rendezvous)
        store = dist.distributed_c10d.PrefixStore(agree_on_attempt(store, rank, size), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise CharlstmError(
                f"the port {rendezvous.place} is in use", "name another one: torchrun --master-port or --rdzv-endpoint"
            ) from error
        raise CharlstmError(
            f"the {size} processes did not meet {rendezvous.place} within {TIMEOUT.total_seconds():.0f} s",
            "all of them must be started, and reach this address",
        ) from error


def open_store(rendezvous: Rendezvous) -> dist.distributed_c10d.Store:
    """Return the key-value store in which the processes meet."""
    if rendezvous.file:
        return dist.FileStore(rendezvous.file, rendezvous.size)  # type: ignore[attr-defined]
    listens = rendezvous.rank == 0 and not rendezvous.is_hosted
    return dist.TCPStore(rendezvous.host, rendezvous.port, is_master=listens, timeout=TIMEOUT, wait_for_workers=False)  # type: ignore[attr-defined]


def agree_on_attempt(store: dist.distributed_c10d.Store, rank: int, size: int) -> str:
    """Return a name that only the processes that run now share.

    torchrun's store outlives them: after a restart it still has what their predecessors wrote. Its number of restarts
    is not the same on every machine. So each process writes a name of its own, and the first one answers to it.
    """
    own = token_hex(16)
    if rank:
        store.set(f"hello {rank}", own)
        attempt = str(store.get(f"welcome {own}"), "ascii")
        store.set(f"joined {attempt} {rank}", "")
        return attempt
    others = range(1, size)
    until = monotonic() + TIMEOUT.total_seconds()
    while not all(store.check([f"joined {own} {other}"]) for other in others):
        for other in others:
            if store.check([f"hello {other}"]):  # it may be that of a predecessor
                store.set(f"welcome {str(store.get(f'hello {other}'), 'ascii')}", own)
        if monotonic() > until:
            raise RuntimeError("the others did not come")
        sleep(MEETING_POLL_SECONDS)
    return own


@contextmanager
def explain_lost_connection() -> Iterator[None]:
    """Turn the error for a process that has ended, or cannot be reached, into a CharlstmError."""
    try:
        yield
    except RuntimeError as error:  # of which torch.distributed's errors are kinds
        if "out of memory" in str(error).lower():
            raise
        raise CharlstmError(
            "a process that trains with this one has ended or cannot be reached",
            "--resume continues the run from its last save; torchrun --max-restarts does so by itself",
        ) from error


def checksum(tensors: Sequence[Tensor]) -> int:
    """Return a number that depends on every bit of these tensors."""
    total = 0
    for tensor in tensors:
        total = crc32(tensor.detach().cpu().numpy().tobytes(), total)
    return total
