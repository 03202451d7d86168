"""Stop strings in a stream: what may already be written, what must wait, and when it is over."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Passes bytes on until one of the stop strings has come by; that string itself is never passed on.

    Bytes that could be the beginning of a stop string are held back until it is clear that they are not.
    UTF-8 is self-synchronising, so matching bytes matches characters.
    """

    def __init__(self, stops: Sequence[bytes]) -> None:
        self.stops = stops
        self.pending = b""
        self.stopped = False

    def push(self, piece: bytes) -> bytes:
        """What can be written now that `piece` has come. Sets `stopped` if a stop string is complete."""
        if not self.stops:
            return piece
        text = self.pending + piece
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self.pending = True, b""
            return text[: min(found)]
        keep = max(overlap(text, stop) for stop in self.stops)
        self.pending = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> bytes:
        """What was held back, once the text has ended."""
        held, self.pending = self.pending, b""
        return held


def overlap(text: bytes, stop: bytes) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next(n for n in range(longest, -1, -1) if text[len(text) - n :] == stop[:n])
