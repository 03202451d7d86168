"""The jobs of one request, from the side of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from charlstm.errors import is_out_of_memory
from charlstm.sampling.fragments import Fragment
from charlstm.serving.batch import StepBatch
from charlstm.serving.errors import ApiError
from charlstm.serving.jobs import Job, SymbolScore
from charlstm.serving.thread import BatchThread

if TYPE_CHECKING:
    from starlette.types import Receive

Output = tuple[int, Fragment, SymbolScore | None]
"""What a job has drawn, with the number of the job."""


class Work:
    """Some jobs that run together. It must be created on the event loop."""

    def __init__(self, stepping: BatchThread, batch: StepBatch, jobs: Sequence[Job]) -> None:
        self.stepping, self.batch, self.jobs = stepping, batch, jobs
        self.loop, self.ready = asyncio.get_running_loop(), asyncio.Event()
        for job in jobs:
            job.notify = self.notify

    def start(self) -> None:
        for job in self.jobs:
            self.stepping.submit(self.batch, job)

    def notify(self) -> None:
        """Wake `outputs`. The thread that steps the batches calls this."""
        with suppress(RuntimeError):  # the server has ended, and its loop is closed
            self.loop.call_soon_threadsafe(self.ready.set)

    async def outputs(self) -> AsyncIterator[list[Output]]:
        """Yield what the jobs have drawn, until all have ended. Raises ApiError if one failed."""
        while True:
            ended = all(job.has_ended for job in self.jobs)  # before the outputs are taken: none is added afterwards
            found = [
                (number, *job.outputs.popleft())
                for number, job in enumerate(self.jobs)
                for _ in range(len(job.outputs))
            ]
            for job in self.jobs:
                if job.error is not None:
                    raise describe_failure(job.error)
            if found:
                yield found
            if ended:
                return
            await self.ready.wait()
            self.ready.clear()

    async def finish(self) -> None:
        """Wait until all jobs have ended. Raises ApiError if one failed."""
        async for _ in self.outputs():
            pass

    def cancel(self) -> None:
        """Free the rows of the jobs before the next step."""
        for job in self.jobs:
            job.cancelled = True


def describe_failure(error: Exception) -> ApiError:
    reason = "out of memory" if is_out_of_memory(error) else f"internal error: {type(error).__name__}: {error}"
    return ApiError(reason, status=500)


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
