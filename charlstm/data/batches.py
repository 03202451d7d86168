"""Contiguous streams through the training text, a window at a time, for truncated back-propagation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.data.split import Tokens
from charlstm.errors import CharlstmError

Window = NDArray[np.int64]


class Batches:
    """B parallel streams of one text. `next()` gives the next window of T characters from each, in reading order, with
    the one that the last of them predicts, and `look_ahead` more.

    Each epoch the text is turned by a random offset, as a ring, and cut into B streams anew, so that the windows'
    borders fall elsewhere. Within an epoch a window begins where the one before it ended: the state is carried.
    Raises CharlstmError where the text is too short for one window of each stream.
    """

    def __init__(self, tokens: Tokens, seq_len: int, batch_size: int, seed: int, look_ahead: int = 0) -> None:
        self.tokens, self.look_ahead = tokens, look_ahead
        self.resize(seq_len, batch_size)
        self.random = np.random.default_rng(seed)
        self.epoch = 0
        self.step = 0  # within the epoch; the next window's number
        self.offset = self.draw_offset()

    def resize(self, seq_len: int, batch_size: int) -> None:
        """Other windows from the next epoch on; only between two of them."""
        least = max(batch_size * seq_len, seq_len + self.look_ahead) + 1  # no window meets its own beginning
        if len(self.tokens) < least:
            raise CharlstmError(
                f"the training part has {len(self.tokens):,} characters, "
                f"and {batch_size} streams of {seq_len} need at least {least:,}",
                "lower --batch-size or --seq-len, or give it more text",
            )
        self.seq_len, self.batch_size = seq_len, batch_size
        self.stream_len = (len(self.tokens) - 1) // batch_size
        self.steps_per_epoch = self.stream_len // seq_len

    def draw_offset(self) -> int:
        return int(self.random.integers(len(self.tokens)))

    @property
    def epochs_read(self) -> float:
        """The epochs behind, with the share of the one that is being read."""
        return self.epoch + self.step / self.steps_per_epoch

    @property
    def at_epoch_start(self) -> bool:
        """Whether the next window is the first of an epoch: what was read before does not lead up to it."""
        return self.step == 0

    def next_window(self) -> Window:
        """Ids [T+1+A, B] with a look-ahead of A: the first T are read, and each predicts the next one."""
        begin = self.offset + np.arange(self.batch_size) * self.stream_len + self.step * self.seq_len
        places = (begin + np.arange(self.seq_len + 1 + self.look_ahead)[:, None]) % len(self.tokens)
        window = self.tokens[places].astype(np.int64)
        self.advance()
        return window

    def advance(self) -> None:
        self.step += 1
        if self.step == self.steps_per_epoch:
            self.epoch, self.step, self.offset = self.epoch + 1, 0, self.draw_offset()

    def state_dict(self) -> dict[str, Any]:
        """The place in the data, and what decides the places to come; JSON."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "offset": self.offset,
            "seq_len": self.seq_len,
            "batch_size": self.batch_size,
            "random": self.random.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.resize(state["seq_len"], state["batch_size"])
        self.epoch, self.step, self.offset = state["epoch"], state["step"], state["offset"]
        self.random.bit_generator.state = state["random"]
