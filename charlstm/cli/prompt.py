"""The text that a command goes on from or works on: given, in a file or piped in."""

from __future__ import annotations

from pathlib import Path

from charlstm.console import Console
from charlstm.errors import UsageError

LONGEST_PROMPT = 1_000_000


def read_prompt(console: Console, prompt: str | None, prompt_file: str | None, what: str = "prompt") -> str:
    """The prompt, or what else it is, that was given or piped in. Raises UsageError for one that cannot be read or is
    too long."""
    if prompt is not None:
        return checked_length(prompt, what)
    if prompt_file is not None and prompt_file != "-":
        try:
            with Path(prompt_file).open("rb") as file:
                return decoded(file.read(4 * LONGEST_PROMPT + 1), what)
        except OSError as error:
            raise UsageError(f"cannot read the prompt file {prompt_file}: {error.strerror}") from error
    if prompt_file == "-" and not console.piped:
        raise UsageError("--prompt-file - reads stdin, and nothing was piped in", "echo Once | charlstm sample")
    if console.piped and console.stdin is not None:
        return decoded(console.stdin.read(4 * LONGEST_PROMPT + 1), what)
    return ""


def decoded(data: bytes, what: str) -> str:
    """A piped prompt. The newline that echo and editors put at the end is not part of it."""
    text = data.decode("utf-8", "surrogateescape")
    return checked_length(text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text, what)


def checked_length(text: str, what: str) -> str:
    if len(text) > LONGEST_PROMPT:
        raise UsageError(
            f"the {what} has more than {LONGEST_PROMPT:,} characters",
            "what is next to the sample matters: tail -c 5000 FILE | charlstm sample, or head for --direction backward"
            if what == "prompt"
            else "give it a part at a time",
        )
    return text
