"""Input that is piped in, and would silently not be read."""

from __future__ import annotations

from charlstm.config import UnknownPolicy
from charlstm.console import Console
from charlstm.errors import UsageError


def check_unread_input(console: Console, alternative: str) -> None:
    """Raise UsageError if something is piped in, for a command that reads stdin only as - and was given no file.

    alternative: how to run the command without this input.
    """
    if console.has_input():
        raise UsageError("something is piped in, and no file is named", f"- reads stdin; {alternative}")


def check_text_source(
    console: Console, named: bool, part: str | None, unknown: UnknownPolicy, encoding: str | None, errors: str | None
) -> None:
    """Raise UsageError for options that contradict each other in a command that reads files or the model's own corpus.

    named: whether a file is named.
    """
    if named:
        if part is not None:
            raise UsageError("--part is a part of the model's own corpus: give --part or a FILE, not both")
        return
    for option, changed in (("--unknown", unknown != "error"), ("--encoding", encoding), ("--errors", errors)):
        if changed:
            raise UsageError(f"{option} has no effect without a FILE", "the model's own corpus is read as it was")
    if part is None:
        check_unread_input(console, "--part val reads the model's own corpus")
