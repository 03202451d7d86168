"""A prompt or template: an option, a file or piped stdin."""

from __future__ import annotations

from pathlib import Path

from charlstm.console import Console
from charlstm.errors import UsageError

MAX_PROMPT = 1_000_000
"""Characters of a prompt."""


def read_prompt(console: Console, prompt: str | None, prompt_file: str | None, kind: str = "prompt") -> str:
    """Return the prompt given as text, in a file or piped in; empty without any.

    kind: what error messages call it. Raises UsageError if it cannot be read or is too long.
    """
    if prompt is not None:
        return check_length(prompt, kind)
    if prompt_file is not None and prompt_file != "-":
        try:
            with Path(prompt_file).open("rb") as file:
                return decode_prompt(file.read(4 * MAX_PROMPT + 1), kind)
        except OSError as error:
            raise UsageError(f"cannot read the prompt file {prompt_file}: {error.strerror}") from error
    if prompt_file == "-" and not console.piped:
        raise UsageError("--prompt-file - reads stdin, and nothing was piped in", "echo Once | charlstm sample")
    if console.piped and console.stdin is not None:
        return decode_prompt(console.stdin.read(4 * MAX_PROMPT + 1), kind)
    return ""


def decode_prompt(data: bytes, kind: str) -> str:
    """Decode a prompt from a file or pipe, without the final newline that echo and editors add."""
    text = data.decode("utf-8", "surrogateescape")
    return check_length(text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text, kind)


def check_length(text: str, kind: str) -> str:
    if len(text) > MAX_PROMPT:
        raise UsageError(
            f"the {kind} has more than {MAX_PROMPT:,} characters",
            "give the part next to the sample: tail -c 5000 FILE | charlstm sample (head for --direction backward)"
            if kind == "prompt"
            else "split it into parts",
        )
    return text
