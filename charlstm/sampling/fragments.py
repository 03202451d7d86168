"""The pieces in which samples are delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from charlstm.sampling.mixture import Before
from charlstm.sampling.repeats import RepeatIndex
from charlstm.sampling.stop_strings import StopMatcher


@dataclass(frozen=True)
class Fragment:
    """A few bytes of one sample. Only its last fragment has a `stop_reason`: "length", "stop", "document" or "repeat".

    The end-of-document symbol counts as a drawn character in the mean.
    """

    index: int
    text: bytes
    stop_reason: str = ""
    mean_log_probability: float = 0.0  # nats per character so far, under the model itself: temperature 1, no filter


@dataclass
class Sample:
    """A sample that is being drawn."""

    index: int
    random: Random
    matcher: StopMatcher
    repeats: RepeatIndex | None = None  # of its text, with `--no-repeat`
    before: Before = ()  # the last symbols that were read or drawn
    drawn: int = 0
    log_probability: float = 0.0

    @classmethod
    def begin(
        cls, seed: int, index: int, stops: Sequence[bytes], repeats: RepeatIndex | None = None, before: Before = ()
    ) -> Sample:
        """Return sample `index` of a seed before its first symbol. These two determine its random numbers."""
        return cls(index, Random(f"{seed}/{index}"), StopMatcher(stops), repeats, before)

    def add(self, symbol: bytes, max_length: int, is_document_end: bool) -> Fragment:
        """Add a drawn symbol and return the fragment that it makes. `max_length` is in symbols; 0 is no limit."""
        self.drawn += 1
        text = self.matcher.push(symbol)
        mean = self.log_probability / self.drawn
        if self.matcher.stopped:
            return Fragment(self.index, text, "stop", mean)
        if is_document_end:
            return Fragment(self.index, text + self.matcher.flush(), "document", mean)
        if self.drawn == max_length:
            return Fragment(self.index, text + self.matcher.flush(), "length", mean)
        return Fragment(self.index, text, "", mean)

    def end_before_repeat(self) -> Fragment:
        """Return the last fragment of a sample in which every symbol would repeat a run."""
        return Fragment(self.index, self.matcher.flush(), "repeat", self.log_probability / max(self.drawn, 1))
