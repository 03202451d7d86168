"""How a text is spelled: its Unicode normal form, its case, its line ends; in chunks, as if it were one piece."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from charlstm.config import DataConfig
from charlstm.vocabulary import Text

MAX_TAIL = 1 << 16
"""Characters that are held back at most, for what may still combine with them."""


def normalize_chunks(chunks: Iterator[str], config: DataConfig) -> Iterator[str]:
    """The text normalised and in lower case, if that is wanted; chunks that are not empty."""
    if config.normalize == "none" and not config.lower:
        yield from filter(None, chunks)
        return
    tail = ""
    for chunk in chunks:
        text = tail + chunk
        cut = find_safe_cut(text)
        tail = text[cut:]
        if cut:
            yield apply_form(text[:cut], config)
    if tail:
        yield apply_form(tail, config)


def normalize_text(text: Text, config: DataConfig) -> Text:
    """A text that somebody typed, in the spelling that the corpus was read in."""
    if isinstance(text, bytes) or config.level == "byte":
        return text
    text = apply_form(text, config)
    return text.replace("\r\n", "\n").replace("\r", "\n") if config.newlines == "lf" else text


def apply_form(text: str, config: DataConfig) -> str:
    if config.normalize != "none":
        text = unicodedata.normalize(config.normalize.upper(), text)  # type: ignore[arg-type]
    return text.lower() if config.lower else text


def find_safe_cut(text: str) -> int:
    """The last place at which the text can be cut without its halves being spelled otherwise than the whole.

    That is before a character that combines with none before it, and after one that is no part of a word: a capital
    sigma is another letter in lower case at a word's end. Where there is no such place near the end, 0, or the end
    once too much would be held back.
    """
    for at in range(len(text) - 1, max(len(text) - MAX_TAIL, 0), -1):
        if starts_cluster(text[at]) and not continues_word(text[at - 1]):
            return at
    return 0 if len(text) < MAX_TAIL else len(text)


def starts_cluster(character: str) -> bool:
    """Whether it never combines with what stands before it, in any normal form."""
    if character < "\u0300":
        return True
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.category(first)[0] != "M" and not "\u1160" <= first <= "\u11ff"  # vowels and finals of Hangul


def continues_word(character: str) -> bool:
    """Whether the case of letters around it may depend on it."""
    return unicodedata.category(character) not in ("Lo", "Nd", "Zs", "Zl", "Zp", "Cc")
