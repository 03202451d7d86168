"""Signals that ask a long command to end."""

from __future__ import annotations

import os
import signal
from types import FrameType

from charlstm.console import Console


class Interrupt:
    """The first signal is only taken note of: the work comes to a good end. The second ends the process at once.

    Use as a context manager; the handlers that were there before come back. Called, it tells whether a signal has
    come; what it has to say it says then, for a handler must not write to a stream that is being written to.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, console: Console, doing: str = "saving") -> None:
        self.console, self.doing = console, doing
        self.signal = 0
        self.said = False

    def __enter__(self) -> Interrupt:
        heeded = [number for number in self.SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
        self.before = {number: signal.signal(number, self.note) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether a signal has come."""
        if self.signal and not self.said:
            self.said = True
            self.console.note(f"{self.doing}; once more to leave at once")
        return self.signal != 0

    @property
    def status(self) -> int:
        """The exit status that tells of it, as a shell would: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            os._exit(128 + number)
        self.signal = number
