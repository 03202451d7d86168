"""The text of a pipe, which one of several processes can read: it sends the text to the others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlstm.storage.spool import Spool

if TYPE_CHECKING:
    from charlstm.model.ranks import Ranks

MESSAGE_BYTES = 16 << 20


def share_spool(ranks: Ranks, spool: Spool | None) -> Spool:
    """Return the text that the first rank has in `spool`."""
    if not ranks.is_first:
        return Spool.from_stream(BufferedReader(Receiver(ranks)))
    assert spool is not None
    with spool.open() as file:
        while ranks.from_first(lambda: file.read(MESSAGE_BYTES)):
            pass
    return spool


def move_pipe_to_stdin(arguments: Sequence[str], corpus: Sequence[str]) -> list[str]:
    """Return the arguments with "-" for the named pipe among the corpus, as of `<(zcat book.gz)`, which is stdin now.

    The processes that are started with them inherit stdin, but no other open file.
    """
    pipes = [source for source in corpus if source != "-" and Path(source).is_fifo()]
    if len(pipes) != 1 or "-" in corpus:
        return [*arguments]
    pipe = os.open(pipes[0], os.O_RDONLY)
    os.dup2(pipe, 0)
    os.close(pipe)
    return ["-" if word == pipes[0] else word for word in arguments]


class Receiver(RawIOBase):
    """The bytes that the first rank sends, up to an empty piece."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks, self.piece = ranks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, and return how many bytes that were; 0 at the end."""
        self.piece = self.piece or self.ranks.from_first(bytes)
        count = min(len(buffer), len(self.piece))
        buffer[:count], self.piece = self.piece[:count], self.piece[count:]
        return count
