"""metrics.jsonl: what a run has logged, read while another process may append to it or replace it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

LoggedLine = dict[str, Any]
"""A line: numbers by their names, and the reason for a roll back."""


class MetricsReader:
    """The complete lines of a metrics.jsonl, read as they are added. Lines that are damaged are left out.

    A file that does not exist has none. A run that is resumed or rolled back replaces its file by a shorter one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[LoggedLine] = []
        self.end = 0  # of what was read, in bytes
        self.last_line = b""

    def update(self) -> bool:
        """Read what was added since the last call. Return whether earlier lines were replaced. Raises OSError."""
        data, replaced = self.read_from(self.end - len(self.last_line)), False
        if not data.startswith(self.last_line):
            self.entries, self.end, self.last_line = [], 0, b""
            data, replaced = self.read_from(0), True
        complete = data[: data.rfind(b"\n") + 1]
        lines = complete.splitlines(keepends=True)
        self.entries += parse_entries(lines[bool(self.last_line) :])
        self.end += len(complete) - len(self.last_line)
        self.last_line = lines[-1] if lines else b""
        return replaced

    @property
    def is_damaged(self) -> bool:
        """Whether the file has something in it and no line of metrics. Raises OSError."""
        return not self.entries and bool(self.read_from(0))

    def read_from(self, start: int) -> bytes:
        """Return the bytes of the file from here on."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""


def parse_entries(lines: Sequence[bytes]) -> list[LoggedLine]:
    """Return lines of metrics without the damaged ones. All are parsed at once if none is: that takes half as long."""
    try:
        entries = json.loads(b"[" + b",".join(lines) + b"]")
        if len(entries) == len(lines) and all(type(entry["step"]) is int for entry in entries):
            return list(entries)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return [entry for line in lines if (entry := parse_entry(line)) is not None]


def parse_entry(line: str | bytes) -> LoggedLine | None:
    """Return a line of metrics, or None for one that was cut short or has no step."""
    try:
        entry = json.loads(line)
        float(entry["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return dict(entry)


def parse_step(line: str) -> float:
    """Return the step of a line of metrics, or infinity for a line that was cut short."""
    entry = parse_entry(line)
    return inf if entry is None else float(entry["step"])
