"""Find stop strings in a stream of bytes."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Passes bytes on until a stop string is complete. The stop string is never passed on.

    Bytes that may be the start of a stop string are kept back until it is clear that they are not. UTF-8 is
    self-synchronizing, so matching bytes matches characters.
    """

    def __init__(self, stops: Sequence[bytes]) -> None:
        self.stops = stops
        self.pending = b""
        self.stopped = False

    def push(self, piece: bytes) -> bytes:
        """Add `piece` and return the bytes that can be passed on. Set `stopped` if a stop string is complete."""
        if not self.stops:
            return piece
        text = self.pending + piece
        matches = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if matches:
            self.stopped, self.pending = True, b""
            return text[: min(matches)]
        keep = max(overlap(text, stop) for stop in self.stops)
        self.pending = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> bytes:
        """Return the bytes kept back, at the end of the text."""
        pending, self.pending = self.pending, b""
        return pending


def overlap(text: bytes, stop: bytes) -> int:
    """Return the length of the longest suffix of `text` that is a proper prefix of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next(n for n in range(longest, -1, -1) if text[len(text) - n :] == stop[:n])
