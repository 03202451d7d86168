"""Records on stdout (JSON and tab-separated text), and numbers in messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from charlstm.console import UNSAFE, Console, escape_controls


def write_json(console: Console, record: Mapping[str, Any]) -> None:
    """Write one JSON object on a line. On a terminal, more characters are escaped than JSON requires."""
    text = json.dumps(record, ensure_ascii=False)
    if console.stdout.isatty():
        text = UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    console.write(text.encode("utf-8", "replace") + b"\n")


def write_row(console: Console, fields: Iterable[str]) -> None:
    """Write one line of tab-separated fields. The fields are already escaped."""
    console.write("\t".join(fields).encode("utf-8", "replace") + b"\n", escaped=True)


def escape_field(text: str) -> str:
    """Escape tabs, newlines, other control characters and backslashes, as in Python string literals."""
    return escape_controls(text.replace("\\", "\\\\"))


def format_duration(seconds: float) -> str:
    """Format seconds as 45s, 3m20s or 2h05m."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def format_count(count: float | None) -> str:
    """Format a number in at most five characters: 950, 1.5k, 12.0M or 3.25G; a dash for None."""
    if count is None:
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:  # which three digits round up
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"
