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
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from multiprocessing import current_process
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from charlstm.errors import CharlstmError
from charlstm.runtime import list_cores

CAN_FORK = sys.platform == "linux" and hasattr(os, "fork")

MIN_STREAMS = 4
"""Fewest streams per process: with fewer, a product of matrices costs nearly as much as with these."""

LEND_AFTER = 1e-3
"""Seconds that a process waits for the others before it lends its core. Undisturbed ones end closer together."""

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


class CoreLoans:
    """The cores of processes that have one each. A process that waits lends its core to one that still computes.

    Left alone, the scheduler may run two of the processes on one core and another program on the second, for seconds.
    Bound to its core, each process would be as slow as the one that shares its core with another program: the others
    are done early and wait. Without one process per core, the scheduler has a core left, and this has no effect.
    """

    def __init__(self, processes: int) -> None:
        self.is_active = sys.platform == "linux" and 1 < processes == len(list_cores())
        self.threads = allocate_shared((processes,), np.int64)  # native id of the one that computes, 0 if none
        self.is_lent = allocate_shared((processes,), np.bool_)  # whether it has been lent a core

    @contextmanager
    def use_core(self, process: int) -> Iterator[None]:
        """Run the current thread on the core of this process within the context, or on one that it is lent."""
        if sys.platform == "linux" and self.is_active:
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, list_cores()[process])
            self.threads[process], self.is_lent[process] = threading.get_native_id(), False
            try:
                yield
            finally:
                self.threads[process] = 0
                os.sched_setaffinity(0, before)
        else:
            yield

    def lend_core(self, lender: int) -> None:
        """Move a process that still computes to the core of this one."""
        if sys.platform != "linux" or not self.is_active:
            return
        others = (self.threads != 0) & ~self.is_lent & (np.arange(len(self.threads)) != lender)
        for process in np.flatnonzero(others)[:1]:
            thread = int(self.threads[process])
            self.is_lent[process] = True
            with suppress(OSError):  # it may have ended
                os.sched_setaffinity(thread, list_cores()[lender])
                if self.threads[process] != thread:  # it is done, and must not stay there
                    os.sched_setaffinity(thread, set().union(*list_cores()))


class Workers:
    """Processes that each answer requests with a handler of their own.

    They end when they are closed or garbage-collected, and when this process ends, however it ends. Signals that stop a
    program are left to this process. Raises CharlstmError if a process cannot be started.
    """

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self.connections: list[Connection] = []
        self.pids: list[int] = []
        self.cores = CoreLoans(len(handlers) + 1)
        self.close = weakref.finalize(self, end_workers, os.getpid(), self.connections, self.pids)
        for k, handler in enumerate(handlers, 1):
            self.start(k, handler)

    def start(self, process: int, handler: Handler) -> None:
        """Start a worker."""
        if sys.platform != "linux":
            raise NotImplementedError
        ours, theirs = Pipe()
        self.connections.append(ours)
        self.pids.append(fork(handler, theirs, self.cores, process))
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
                if not connection.poll(LEND_AFTER):
                    self.cores.lend_core(0)
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


def fork(handler: Handler, connection: Connection, cores: CoreLoans, process: int) -> int:
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
            serve(handler, connection, cores, process)
        finally:
            os._exit(0)
    return pid


def serve(handler: Handler, connection: Connection, cores: CoreLoans, process: int) -> None:
    """Answer requests until the other end of the connection is closed."""
    if sys.platform != "linux":
        raise NotImplementedError
    os.setsid()  # the scheduler shares the processor among sessions: in its own, a worker gets the share of a program
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(stop, signal.SIG_IGN)
    release_files(connection.fileno())
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            return
        try:
            with cores.use_core(process):
                answer = handler(request)
        except Exception as error:
            answer = error
        try:
            connection.send(answer)
            if not connection.poll(LEND_AFTER):
                cores.lend_core(process)
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
        with workers.cores.use_core(0):
            return [tasks[0](), *workers.receive()]
    finally:
        workers.close()
