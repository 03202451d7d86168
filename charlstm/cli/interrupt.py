"""Signals that ask a long command to end."""

from __future__ import annotations

import os
import signal
from time import monotonic
from types import FrameType

from charlstm.console import Console


class Interrupt:
    """Ends a long command: the first signal asks it to finish cleanly, the second exits at once.

    Use it as a context manager, which restores the previous handlers, and call it to find out whether a signal has
    arrived. The call also prints the notice: a signal handler must not write to a stream that may be in use.

    action: what the command does after the first signal, for the notice.
    copies_within: seconds after the first signal in which another one is taken for its copy: a launcher passes on what
        the whole group may have got.
    """

    SIGNALS: tuple[signal.Signals, ...] = tuple(
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
    )  # Windows has SIGBREAK (Ctrl-Break, a closed window) instead of SIGHUP

    def __init__(self, console: Console, action: str = "saving", copies_within: float = 0.0) -> None:
        self.console, self.action, self.copies_within = console, action, copies_within
        self.signal, self.arrived_at = 0, 0.0
        self.announced = False

    def __enter__(self) -> Interrupt:
        handled = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
        self.previous = {number: signal.signal(number, self.handle) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Return whether a signal has arrived."""
        if self.signal and not self.announced:
            self.announced = True
            self.console.note(f"{self.action}; press Ctrl-C again to exit at once")
        return self.signal != 0

    @property
    def status(self) -> int:
        """The exit status of a process that a signal ended, as in a shell: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self.signal:
            self.signal, self.arrived_at = number, monotonic()
        elif monotonic() - self.arrived_at >= self.copies_within:
            os._exit(128 + number)
