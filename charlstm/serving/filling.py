"""Texts between a prefix and a suffix, for /infill and for the field `suffix`: the best fillings of one gap."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from threading import Event

from charlstm.config import UnknownPolicy
from charlstm.infilling.filler import MAX_CONTEXT
from charlstm.infilling.template import Template
from charlstm.serving.models import ServedModel

DEFAULT_GAP = 16
"""Characters that are filled in at most, if a request does not limit them."""


class FillingThread:
    """Fills gaps one after the other, next to the batches. A filling takes as long as thousands of steps do."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "charlstm filling")

    def close(self) -> None:
        """Drop what waits for its turn."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    async def fill(
        self, model: ServedModel, before: str, after: str, longest: int, n: int, *, seed: int, unknown: UnknownPolicy
    ) -> list[str]:
        """Return the `n` best texts of 1 to `longest` symbols found for the place between two texts, best first.

        Fewer are returned if fewer are found. If the task is cancelled, the work ends after the current character or,
        with a bidirectional model, the current sweep.
        """
        template = Template(cut_context(before, after), (longest,), open=True)
        cancelled = Event()

        def check(share: float) -> None:
            if cancelled.is_set():
                raise CancelledError

        def find() -> list[str]:
            filler = model.filler.with_seed(seed)
            found = filler.fill(template, filler.encode(template, unknown), n, check)
            return [filling.fills[0].decode("utf-8", "replace") for filling in found]

        try:
            return await asyncio.wrap_future(self.pool.submit(find))
        finally:
            cancelled.set()


def cut_context(before: str, after: str) -> tuple[str, str]:
    """Return the end of the text before a gap and the start of the text after it: what a filling reads."""
    return before[-MAX_CONTEXT:], after[:MAX_CONTEXT]


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """Return a text up to the first stop string."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]
