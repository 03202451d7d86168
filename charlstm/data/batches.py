"""Contiguous streams through the training text, one window at a time, for truncated back-propagation."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.config import Config
from charlstm.data.split import Tokens
from charlstm.errors import CharlstmError
from charlstm.wording import quantity

Window = NDArray[np.int64]

MIN_WINDOWS = 4
"""Windows per stream in a small text, so that an epoch has more than one step."""


def check_text_size(tokens: Tokens, seq_len: int, batch_size: int, look_ahead: int) -> None:
    """Raise CharlstmError unless every stream has a window, and no window overlaps its own beginning."""
    for needed, what, options in (
        (
            batch_size * seq_len + 1,
            f"{quantity(batch_size, 'stream')} of {seq_len} need{'s' * (batch_size == 1)}",
            "--batch-size or --seq-len",
        ),
        (
            seq_len + look_ahead + 1,
            f"a window of {seq_len} with a look-ahead of {look_ahead} needs",
            "--seq-len or training.look_ahead (--set)",
        ),
    ):
        if len(tokens) < needed:
            raise CharlstmError(
                f"the training part has {quantity(len(tokens), 'character')}, and {what} at least {needed:,}",
                f"lower {options}, or add more text" if seq_len * batch_size > 1 else "add more text",
            )


def fit_batches(config: Config, length: int, given: Collection[str]) -> dict[str, int]:
    """Return the settings that let a training part of this length be read, by `section.key`; empty if they do already.

    A small text is read in one stream, in shorter windows and with a shorter look-ahead. `given` are the settings that
    the user set, which keep their values: the text may still be too small for them.
    """
    training, two_sided = config.training, config.model.bidirectional
    ahead = training.look_ahead if two_sided else 0
    if length >= max(training.batch_size * training.seq_len, training.seq_len + ahead) + 1:
        return {}
    batch_size = training.batch_size if "training.batch_size" in given else 1
    least_ahead = ahead if "training.look_ahead" in given else int(two_sided)
    longest = min((length - 1) // (MIN_WINDOWS * batch_size), length - 1 - least_ahead)
    seq_len = training.seq_len if "training.seq_len" in given else max(min(training.seq_len, longest), 1)
    fitted = {"training.batch_size": batch_size, "training.seq_len": seq_len}
    if two_sided:
        fitted["training.look_ahead"] = max(min(ahead, length - 1 - seq_len), 1)
    return {key: value for key, value in fitted.items() if key not in given}


class Batches:
    """B parallel streams of one text, read in windows of T characters.

    An epoch takes the text as a ring, cuts it from a random place on into segments of S characters, and draws their
    order. The streams read one segment after another, so that every batch comes from B random places of the text.
    Within a segment each window starts where the previous one ended, so the state can be carried. All streams begin a
    segment at the same step. Without S there is one segment per stream, and the segments are in the order of the text.

    `seq_len` is T, `batch_size` is B, and `seed` determines the place and the order. `segment_len` is S, which becomes
    a multiple of T that divides the text evenly; 0 is without. `look_ahead` is the number of further characters in each
    window, after the last target. Raises CharlstmError if the text is too short for one window of each stream.
    """

    def __init__(
        self, tokens: Tokens, seq_len: int, batch_size: int, seed: int, look_ahead: int = 0, segment_len: int = 0
    ) -> None:
        check_text_size(tokens, seq_len, batch_size, look_ahead)
        self.tokens, self.seq_len, self.batch_size, self.look_ahead = tokens, seq_len, batch_size, look_ahead
        windows = (len(tokens) - 1) // (batch_size * seq_len)  # per stream
        self.segments = max(round(windows * seq_len / segment_len), 1) if segment_len else 1  # per stream
        self.segment_windows = max(windows // self.segments, 1)
        self.segments = windows // self.segment_windows
        self.steps_per_epoch = self.segments * self.segment_windows
        self.seed = seed
        self.random = np.random.default_rng(seed)
        self.epoch = 0
        self.step = 0  # index of the next window within the epoch
        self.offset = self.draw_offset()
        self.order = self.draw_order()

    @classmethod
    def from_config(cls, tokens: Tokens, config: Config) -> Batches:
        """Return the batches that a run with these settings trains on. Raises CharlstmError for too short a text."""
        settings = config.training
        look_ahead = settings.look_ahead if config.model.bidirectional else 0
        return cls(tokens, settings.seq_len, settings.batch_size, settings.seed, look_ahead, settings.segment_len)

    def draw_offset(self) -> int:
        return int(self.random.integers(len(self.tokens)))

    def draw_order(self) -> NDArray[np.int64]:
        """Return the segments of this epoch in the order in which they are read, [segments, B].

        It is a function of the seed and the epoch, so that a saved position does not contain it.
        """
        order = np.arange(self.segments * self.batch_size)
        if self.segments > 1:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        return order.reshape(self.segments, self.batch_size)

    @property
    def epochs_read(self) -> float:
        """Epochs completed, plus the share read of the current one."""
        return self.epoch + self.step / self.steps_per_epoch

    @property
    def at_segment_start(self) -> bool:
        """Whether the next window is the first of a segment, so that no state is carried into it."""
        return self.step % self.segment_windows == 0

    def next_window(self) -> Window:
        """Return the next ids [T+1+A, B], with a look-ahead of A.

        The first T are the inputs; the target of each is the id that follows it.
        """
        segment, window = divmod(self.step, self.segment_windows)
        distance = (len(self.tokens) - 1) // self.order.size  # between the starts of segments
        first = self.offset + self.order[segment] * distance + window * self.seq_len
        positions = (first + np.arange(self.seq_len + 1 + self.look_ahead)[:, None]) % len(self.tokens)
        ids = self.tokens[positions].astype(np.int64)
        self.advance()
        return ids

    def advance(self) -> None:
        self.step += 1
        if self.step == self.steps_per_epoch:
            self.epoch, self.step, self.offset = self.epoch + 1, 0, self.draw_offset()
            self.order = self.draw_order()

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the text and the random generator, as JSON values."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "offset": self.offset,
            "seq_len": self.seq_len,
            "batch_size": self.batch_size,
            "random": self.random.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a position. Raises ValueError for a state with another window length or number of streams."""
        for name in ("seq_len", "batch_size"):
            if state[name] != getattr(self, name):
                raise ValueError(f"{name} is {state[name]} in the state and {getattr(self, name)} here")
        self.epoch, self.step, self.offset = state["epoch"], state["step"], state["offset"]
        self.random.bit_generator.state = state["random"]
        self.order = self.draw_order()
