"""What the batch works on: a prompt to read, and the samples to draw after it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from charlstm.config import SamplingConfig
from charlstm.sampling.fragments import Fragment, Sample
from charlstm.sampling.reading_order import ReadingOrder


@dataclass(frozen=True)
class SymbolScore:
    """The natural log-probability of a symbol, and the most likely symbols in its place with theirs."""

    symbol: int
    log_probability: float
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class Job:
    """A prompt that the batch reads, and the samples that it draws after it.

    The batch adds to `outputs` and `prompt_scores` on its thread and calls `notify` there. Whoever waits for the job
    takes the outputs on another thread, and sets `cancelled` to end the job before the next step.
    """

    symbols: Sequence[int]
    """The symbols to read: BOS and the prompt."""
    config: SamplingConfig = field(default_factory=SamplingConfig)
    samples: list[Sample] = field(default_factory=list)
    targets: Sequence[int] = ()
    """The symbol to score after each symbol that is read; empty to score none."""
    top: int | None = None
    """Compute the log-probabilities of drawn symbols, and of this many likeliest ones in their place."""

    outputs: deque[tuple[Fragment, SymbolScore | None]] = field(default_factory=deque)
    prompt_scores: list[SymbolScore] = field(default_factory=list)
    open: int = 1
    """Samples that have not ended; 1 for a job that only reads."""
    error: Exception | None = None
    cancelled: bool = False
    notify: Callable[[], None] = lambda: None
    notified_at: float = 0.0

    def __post_init__(self) -> None:
        self.open = max(len(self.samples), 1)
        config = self.config
        self.filters = (config.temperature, config.top_k, config.top_p, config.min_p)
        """What decides how a row is drawn: rows with the same filters are drawn together."""

    @property
    def rows(self) -> int:
        """The most rows of the batch that the job needs at a time."""
        return max(len(self.samples), 1)

    @property
    def has_ended(self) -> bool:
        return self.open == 0


def make_samples(seed: int, n: int, stops: Sequence[str]) -> list[Sample]:
    """Return `n` samples, drawn as those of `charlstm sample` with this seed."""
    encoded = ReadingOrder("forward").stop_bytes(stops)
    return [Sample.begin(seed, index, encoded) for index in range(n)]
