"""The thread that steps the batches."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread
from time import monotonic

from charlstm.serving.batch import StepBatch
from charlstm.serving.jobs import Job

NOTIFY_EVERY = 0.04
"""Seconds between two notifications about a job. Its first and its last output are reported at once."""


class BatchThread:
    """Steps batches on a thread of its own, as long as they have jobs. A context manager."""

    def __init__(self, batches: Sequence[StepBatch]) -> None:
        self.batches = batches
        self.submitted: SimpleQueue[tuple[StepBatch, Job] | None] = SimpleQueue()
        self.thread = Thread(target=self.run, name="charlstm stepping", daemon=True)

    def __enter__(self) -> BatchThread:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.submitted.put(None)
        self.thread.join()

    def submit(self, batch: StepBatch, job: Job) -> None:
        """Queue a job. Any thread may call this."""
        self.submitted.put((batch, job))

    def run(self) -> None:
        """Step until `__exit__`."""
        while True:
            busy = [batch for batch in self.batches if batch.is_busy]
            while not busy or not self.submitted.empty():
                entry = self.submitted.get()
                if entry is None:
                    return
                batch, job = entry
                batch.waiting.append(job)
                busy = [batch for batch in self.batches if batch.is_busy]
            for batch in busy:
                advance_batch(batch)


def advance_batch(batch: StepBatch) -> None:
    """Step a batch and notify whoever waits for its jobs. If the step fails, so do all of its jobs."""
    try:
        jobs = batch.step()
    except Exception as error:  # it is reported to the clients, and the next requests are served
        jobs = batch.clear(error)
    now = monotonic()
    for job in jobs:
        if job.has_ended or (job.outputs and now - job.notified_at >= NOTIFY_EVERY):
            job.notified_at = now
            job.notify()
