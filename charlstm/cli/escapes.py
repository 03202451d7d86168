"""Backslash sequences in options: a shell passes '\\n' on as two characters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from charlstm.console import Console

if TYPE_CHECKING:
    from charlstm.vocabulary import Vocabulary  # imports NumPy, which --help does not need

NAMES = {"n": "newline", "t": "tab", "r": "carriage return"}
"""The character that an escape sequence denotes, by its letter."""


def advise_on_escapes(console: Console, where: str, text: str, vocabulary: Vocabulary | None = None) -> None:
    """Print how to type a newline or tab if a text from the command line spells one with a backslash.

    A model that has learned backslashes from its corpus was trained on text that uses them, so nothing is printed. A
    model of bytes knows every byte, which says nothing.

    where: the option or argument.
    vocabulary: that of the model that reads the text, if there is one.
    """
    found = re.search(rf"\\([{''.join(NAMES)}])", text)
    if found is None or (vocabulary and vocabulary.level == "char" and vocabulary.lookup("\\")[0] >= 0):
        return
    sequence = found[0]
    console.note(
        f"{where} contains {sequence}, a backslash and a letter; in bash and zsh, $'{sequence}' is a {NAMES[found[1]]}"
    )
