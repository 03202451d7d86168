"""Input that is piped in, and would silently not be read."""

from __future__ import annotations

from charlstm.console import Console
from charlstm.errors import UsageError


def check_unread_input(console: Console, alternative: str) -> None:
    """Raise UsageError if something is piped in, for a command that reads stdin only as - and was given no file.

    alternative: how to run the command without this input.
    """
    if console.has_input():
        raise UsageError("something is piped in, and no file is named", f"- reads stdin; {alternative}")
