"""SIGUSR1, which asks a command to save now and to continue."""

from __future__ import annotations

import signal
from types import FrameType


class SaveSignal:
    """Notes that SIGUSR1 has arrived, which would otherwise end the process. Windows has no such signal.

    Use it as a context manager, which restores the previous handler, and call it between two steps.
    """

    def __init__(self) -> None:
        self.number: int | None = getattr(signal, "SIGUSR1", None)
        self.arrived = False

    def __enter__(self) -> SaveSignal:
        if self.number is not None:
            self.previous = signal.signal(self.number, self.handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self.number is not None:
            signal.signal(self.number, self.previous)

    def __call__(self) -> bool:
        """Return whether the signal has arrived since the last call."""
        arrived, self.arrived = self.arrived, False
        return arrived

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.arrived = True
