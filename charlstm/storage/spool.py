"""The text of a pipe, which can be read only once: kept in memory while it is small, otherwise on disk."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from charlstm.storage.cache import cache_folder
from charlstm.storage.files import (
    COPY_BYTES,
    PARTIAL_SUFFIX,
    move_atomically,
    remove_file,
    write_atomically,
    write_error,
)
from charlstm.storage.locate import STDIN

MAX_IN_MEMORY = 64 << 20
"""Bytes of a corpus that are kept in memory; a larger one is kept on disk."""


class Spool:
    """The bytes of a pipe, which can be read from the start any number of times."""

    def __init__(self, data: bytes = b"", path: Path | None = None) -> None:
        self.data, self.path = data, path

    @classmethod
    def from_stdin(cls, sources: Iterable[str], stdin: BinaryIO | Spool | None) -> Spool | None:
        """Read stdin if `-` is among the sources. A spool, or None, is returned as it is."""
        if isinstance(stdin, Spool) or stdin is None:
            return stdin
        return cls.from_stream(stdin) if STDIN in sources else None

    @classmethod
    def from_stream(cls, stream: BinaryIO) -> Spool:
        """Read a stream to its end.

        What does not fit in memory goes to a file in the cache folder, which is removed with the spool unless
        `move_to` has made it a file of the run. Raises CharlstmError if it cannot be written.
        """
        data = stream.read(MAX_IN_MEMORY + 1)
        if len(data) <= MAX_IN_MEMORY:
            return cls(data)
        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix="stdin-", suffix=PARTIAL_SUFFIX, delete=False) as file:
                spool = cls(path=Path(file.name))
                spool.remove_when_unused()
                file.write(data)
                del data
                shutil.copyfileobj(stream, file, COPY_BYTES)
        except OSError as error:
            raise write_error(folder, error) from error
        return spool

    def remove_when_unused(self) -> None:
        """Remove the file when the spool is garbage-collected or the process ends."""
        assert self.path is not None
        self.removal = weakref.finalize(self, remove_if_possible, self.path)

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.path.stat().st_size if self.path else len(self.data)

    def open(self) -> BinaryIO:
        """Open the bytes at the first one."""
        return self.path.open("rb") if self.path else BytesIO(self.data)

    def move_to(self, path: Path) -> None:
        """Make the text a file of this name. Raises CharlstmError if it cannot be written."""
        if self.path is None:
            write_atomically(path, self.data)
            return
        move_atomically(self.path, path)
        self.removal.detach()
        self.path = path


def remove_if_possible(path: Path) -> None:
    """Remove a file of the cache. If it is still open where that prevents it, `charlstm show cache --clear` does."""
    with suppress(OSError):
        remove_file(path)
