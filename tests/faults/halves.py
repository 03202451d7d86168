"""A file whose every write is two halves with something in between: where a process is killed, or the disk fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Halved:
    """Stands in for a file that is written to."""

    def __init__(self, file: Any, between: Callable[[], None]) -> None:
        self.file, self.between = file, between

    def write(self, piece: bytes) -> None:
        data = bytes(piece)
        self.file.write(data[: len(data) // 2])
        self.between()
        self.file.write(data[len(data) // 2 :])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
