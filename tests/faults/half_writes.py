"""A file that writes every piece in two halves, with a call in between: a place to kill the process or to fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class HalfWrites:
    """Wraps a file that is open for writing; `between` is called in the middle of every write."""

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
