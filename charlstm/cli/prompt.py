"""A prompt or template: an option, a file or piped stdin."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from charlstm.config import UnknownPolicy
from charlstm.console import Console
from charlstm.decoding import LONGEST_BOM, TextDecoder, describe_changes
from charlstm.errors import UsageError

MAX_PROMPT = 1_000_000
"""Characters of a prompt."""

MAX_BYTES = 4 * MAX_PROMPT + LONGEST_BOM
"""Bytes of the longest prompt, in any of the encodings that a byte order mark identifies."""


def read_prompt(console: Console, prompt: str | None, prompt_file: str | None, kind: str = "prompt") -> str | bytes:
    """Return the prompt as text, or as the bytes of a file or of stdin; empty if there is none.

    kind: what error messages call it. Raises UsageError if it cannot be read or is too long.
    """
    if prompt is not None:
        return check_length(prompt, kind)
    if prompt_file is not None and prompt_file != "-":
        try:
            with Path(prompt_file).open("rb") as file:
                return read_bytes(file, kind)
        except OSError as error:
            raise UsageError(f"cannot read the prompt file {prompt_file}: {error.strerror}") from error
    if prompt_file == "-" and not console.piped:
        raise UsageError("--prompt-file - reads stdin, and nothing was piped in", "echo Once | charlstm sample")
    if console.piped and console.stdin is not None:
        return read_bytes(console.stdin, kind)
    return ""


def read_bytes(file: BinaryIO, kind: str) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise too_long(kind)
    return data


def decode_prompt(
    console: Console, prompt: str | bytes, level: str, unknown: UnknownPolicy, kind: str = "prompt"
) -> str:
    """Return a prompt as text: the bytes of a file or pipe are decoded, and lose the newline that echo and editors add.

    level: of the model. One of bytes reads the bytes as they are: those that are not text become surrogate escapes.
    unknown: what happens to such bytes for another model. Unless they are an error, they are unknown characters.
    kind: what error messages call the prompt.

    Raises UsageError if the prompt is too long, CharlstmError if it is not UTF-8, or not in the encoding of its byte
    order mark.
    """
    if isinstance(prompt, str):
        return prompt
    if level == "byte":
        text = prompt.decode("utf-8", "surrogateescape")
    else:
        decoder = TextDecoder(f"the {kind}", errors="strict" if unknown == "error" else "surrogateescape")
        text = decoder.decode(prompt, final=True)
        for note in describe_changes([decoder.changes]):
            console.note(note, "dim")
    return check_length(text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text, kind)


def check_length(text: str, kind: str) -> str:
    if len(text) > MAX_PROMPT:
        raise too_long(kind)
    return text


def too_long(kind: str) -> UsageError:
    return UsageError(
        f"the {kind} has more than {MAX_PROMPT:,} characters",
        "give the part next to the sample: tail -c 5000 FILE | charlstm sample (head for --direction backward)"
        if kind == "prompt"
        else "split it into parts",
    )
