"""Processes that share the work of one, each on a processor core of its own.

Training and evaluation read many streams of text at once, and give each process some of them. The processes wait for
each other once per training step. Threads that share the matrix products of a layer would wait for each other twice per
character, and all of them whenever another program takes the core of one: next to one busy program, two threads then
reach a fifth of the speed of one.

A process is a fork: it starts in milliseconds and shares the memory of its parent. Where forking is not safe (macOS) or
does not exist (Windows), one process uses torch's threads.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from multiprocessing import current_process
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charlstm.errors import CharlstmError
from charlstm.runtime import pinned

CAN_FORK = sys.platform == "linux" and hasattr(os, "fork")

MIN_STREAMS = 4
"""Fewest streams per process: with fewer, a product of matrices costs nearly as much as with these."""

STDERR = 2

Handler = Callable[[Any], Any]
"""Answers a request in a worker. Requests and answers are pickled."""


def count_processes(cores: int, streams: int) -> int:
    """Return how many processes share these streams on these cores."""
    forkable = CAN_FORK and not current_process().daemon  # a worker, say of a data loader, has no children of its own
    return max(min(cores, streams // MIN_STREAMS), 1) if forkable else 1


def divide(count: int, parts: int) -> list[slice]:
    """Divide `count` streams into consecutive parts of nearly equal size."""
    edges = [count * k // parts for k in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(edges)]


def allocate_shared(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of zeros in memory that this process shares with its later workers."""
    size = int(np.prod(shape))
    return np.frombuffer(mmap.mmap(-1, max(size, 1) * np.dtype(dtype).itemsize), dtype, size).reshape(shape)


class Workers:
    """Processes that each answer requests with a handler of their own.

    They end when they are closed or garbage-collected, and when this process ends, however it ends. Signals that stop a
    program are left to this process. Raises CharlstmError if a process cannot be started.
    """

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self.connections: list[Connection] = []
        self.pids: list[int] = []
        self.close = weakref.finalize(self, end_workers, os.getpid(), self.connections, self.pids)
        for k, handler in enumerate(handlers, 1):
            with pinned(k, len(handlers) + 1):  # the child is forked on its core and stays there
                self.start(handler)

    def start(self, handler: Handler) -> None:
        """Start a worker."""
        if sys.platform != "linux":
            raise NotImplementedError
        ours, theirs = Pipe()
        self.connections.append(ours)
        self.pids.append(fork(handler, theirs))
        theirs.close()

    def send(self, request: Any) -> None:
        """Send a request to all workers."""
        for k in range(len(self.connections)):
            self.send_to(k, request)

    def send_to(self, k: int, request: Any) -> None:
        """Send a request to one worker. Raises CharlstmError if it has ended."""
        try:
            self.connections[k].send(request)
        except OSError:
            raise self.explain_end(k) from None

    def receive(self) -> list[Any]:
        """Return the answer of each worker to the last request. Raises the error of a handler."""
        answers = []
        for k, connection in enumerate(self.connections):
            try:
                answer = connection.recv()
            except (EOFError, OSError):
                raise self.explain_end(k) from None
            answers.append(answer)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def explain_end(self, k: int) -> CharlstmError:
        """Return the error for a worker that has ended."""
        if sys.platform != "linux":
            raise NotImplementedError
        _, status = os.waitpid(self.pids.pop(k), 0)
        how = f"by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "unexpectedly"
        return CharlstmError(
            f"one of the processes that share the work was ended {how}",
            "if memory ran out: --threads 1 or a lower --batch-size; --resume continues a run from its last save",
        )


def fork(handler: Handler, connection: Connection) -> int:
    """Start a worker and return its process id. Raises CharlstmError if that fails."""
    if sys.platform != "linux":
        raise NotImplementedError
    with warnings.catch_warnings():
        # Python 3.12 warns of forks in a process with threads: their locks stay locked in the child. A worker takes
        # none of them: it computes, and uses its connection.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            pid = os.fork()
        except OSError as error:
            raise CharlstmError(f"cannot start a process: {error.strerror}", "--threads 1 needs none") from error
    if pid == 0:
        try:
            serve(handler, connection)
        finally:
            os._exit(0)
    return pid


def serve(handler: Handler, connection: Connection) -> None:
    """Answer requests until the other end of the connection is closed."""
    if sys.platform != "linux":
        raise NotImplementedError
    os.setsid()  # the scheduler shares the processor among sessions: in its own, a worker gets the share of a program
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    release_files(connection.fileno())
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = handler(request)
        except Exception as error:
            answer = error
        try:
            connection.send(answer)
        except OSError:
            return


def release_files(connection: int) -> None:
    """Close the files inherited from the parent except stderr: a lock or a pipe ends with it, not with the workers.

    The numbers stay in use, so that no object of the parent closes a file that is opened later.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number not in (STDERR, connection, null):
            with suppress(OSError):  # the number of the folder itself, which is closed by now
                os.fstat(number)
                os.dup2(null, number)


def end_workers(owner: int, connections: list[Connection], pids: list[int]) -> None:
    """End workers, in the process that started them: a later worker inherits the object, but not the processes."""
    if sys.platform != "linux":
        raise NotImplementedError
    if os.getpid() != owner:
        return
    for connection in connections:
        connection.close()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def compute_in_parallel(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Compute each task in a process of its own, the first in this one, and return the results in order."""
    if len(tasks) == 1:
        return [tasks[0]()]

    def answer(task: int) -> Any:
        return tasks[task]()

    workers = Workers([answer] * (len(tasks) - 1))
    try:
        for k in range(1, len(tasks)):
            workers.send_to(k - 1, k)
        with pinned(0, len(tasks)):
            return [tasks[0](), *workers.receive()]
    finally:
        workers.close()
