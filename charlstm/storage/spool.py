"""What came through a pipe: it can be read only once, so it is kept: in memory while it is small, else on the disk."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from charlstm.storage.cache import cache_folder
from charlstm.storage.files import read_umask, write_atomically, write_error

MAX_IN_MEMORY = 64 << 20
"""Bytes up to which a corpus stays in memory."""

STDIN = "-"

COPY_BYTES = 1 << 20


class Spool:
    """The bytes of a pipe, ready to be read from the start as often as one likes."""

    def __init__(self, data: bytes = b"", path: Path | None = None) -> None:
        self.data, self.path = data, path

    @classmethod
    def from_stream(cls, stream: BinaryIO) -> Spool:
        """Reads the pipe to its end. More than fits in memory goes to a file in the cache folder, until the run or the
        process ends. Raises CharlstmError where that has no room.
        """
        data = stream.read(MAX_IN_MEMORY + 1)
        if len(data) <= MAX_IN_MEMORY:
            return cls(data)
        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix="stdin-", suffix=".part", delete=False) as file:
                piped = cls(path=Path(file.name))
                piped.remove_when_unused()
                file.write(data)
                del data
                shutil.copyfileobj(stream, file, COPY_BYTES)
        except OSError as error:
            raise write_error(folder, error) from error
        return piped

    @classmethod
    def from_stdin(cls, sources: Iterable[str], stdin: BinaryIO | Spool | None) -> Spool | None:
        """What stdin has to give, read if it is among the sources; what was read before stays as it is."""
        if isinstance(stdin, Spool) or stdin is None:
            return stdin
        return cls.from_stream(stdin) if STDIN in sources else None

    def remove_when_unused(self) -> None:
        assert self.path is not None
        self.removal = weakref.finalize(self, self.path.unlink, missing_ok=True)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size if self.path else len(self.data)

    def open(self) -> BinaryIO:
        """Its bytes from the first on."""
        return self.path.open("rb") if self.path else BytesIO(self.data)

    def move_to(self, path: Path) -> None:
        """Makes it a file of this name, whole or not at all. Raises CharlstmError where that cannot be written."""
        if self.path is None:
            write_atomically(path, self.data)
            return
        try:
            shutil.move(self.path, path.with_suffix(".part"))  # a copy, where this is another file system
            path.with_suffix(".part").chmod(0o666 & ~read_umask())
            path.with_suffix(".part").replace(path)
        except OSError as error:
            raise write_error(path, error) from error
        self.removal.detach()
        self.path = path
