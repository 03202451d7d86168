"""Contiguous streams through the training text, one window at a time, for truncated back-propagation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.data.split import Tokens
from charlstm.errors import CharlstmError

Window = NDArray[np.int64]


class Batches:
    """B parallel streams of one text, read in windows of T characters.

    Each epoch rotates the text by a random offset, as a ring, and cuts it into B streams, so the boundaries of windows
    differ between epochs. Within an epoch each window starts where the previous one ended, so the state can be carried.

    `seq_len` is T, `batch_size` is B, and `seed` determines the offsets. `look_ahead` is the number of further
    characters in each window, after the last target. Raises CharlstmError if the text is too short for one window of
    each stream.
    """

    def __init__(self, tokens: Tokens, seq_len: int, batch_size: int, seed: int, look_ahead: int = 0) -> None:
        minimum = max(batch_size * seq_len, seq_len + look_ahead) + 1  # no window overlaps its own beginning
        if len(tokens) < minimum:
            raise CharlstmError(
                f"the training part has {len(tokens):,} characters, "
                f"and {batch_size} streams of {seq_len} need at least {minimum:,}",
                "lower --batch-size or --seq-len, or add more text",
            )
        self.tokens, self.seq_len, self.batch_size, self.look_ahead = tokens, seq_len, batch_size, look_ahead
        self.stream_len = (len(tokens) - 1) // batch_size
        self.steps_per_epoch = self.stream_len // seq_len
        self.random = np.random.default_rng(seed)
        self.epoch = 0
        self.step = 0  # index of the next window within the epoch
        self.offset = self.draw_offset()

    def draw_offset(self) -> int:
        return int(self.random.integers(len(self.tokens)))

    @property
    def epochs_read(self) -> float:
        """Epochs completed, plus the share read of the current one."""
        return self.epoch + self.step / self.steps_per_epoch

    @property
    def at_epoch_start(self) -> bool:
        """Whether the next window is the first of an epoch, so that no state is carried into it."""
        return self.step == 0

    def next_window(self) -> Window:
        """Return the next ids [T+1+A, B], with a look-ahead of A.

        The first T are the inputs; the target of each is the id that follows it.
        """
        first = self.offset + np.arange(self.batch_size) * self.stream_len + self.step * self.seq_len
        positions = (first + np.arange(self.seq_len + 1 + self.look_ahead)[:, None]) % len(self.tokens)
        window = self.tokens[positions].astype(np.int64)
        self.advance()
        return window

    def advance(self) -> None:
        self.step += 1
        if self.step == self.steps_per_epoch:
            self.epoch, self.step, self.offset = self.epoch + 1, 0, self.draw_offset()

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
