"""Unicode normalization, lower case and line endings, in chunks, with the same result as for the whole text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from charlstm.config import DataConfig
from charlstm.vocabulary import Text

MAX_TAIL = 1 << 16
"""Characters carried over to the next chunk at most, because that chunk may combine with them."""


def normalize_chunks(chunks: Iterator[str], config: DataConfig) -> Iterator[str]:
    """Apply the normal form and lower case of `config`. Yields no empty chunk."""
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
    """Normalize a prompt or another short text as the corpus was: normal form, lower case and line endings."""
    if isinstance(text, bytes) or config.level == "byte":
        return text
    text = apply_form(text, config)
    return text.replace("\r\n", "\n").replace("\r", "\n") if config.newlines == "lf" else text


def apply_form(text: str, config: DataConfig) -> str:
    if config.normalize != "none":
        text = unicodedata.normalize(config.normalize.upper(), text)  # type: ignore[arg-type]
    return text.lower() if config.lower else text


def find_safe_cut(text: str) -> int:
    """Find the last position where cutting the text does not change the normalized result.

    The character after the cut must not combine with those before it. The character before the cut must not be part of
    a word, because the lower case of a capital sigma depends on whether it ends its word. Returns 0 if there is no such
    position, or the length of the text if it is longer than `MAX_TAIL`.
    """
    for at in range(len(text) - 1, max(len(text) - MAX_TAIL, 0), -1):
        if never_combines(text[at]) and not affects_case(text[at - 1]):
            return at
    return 0 if len(text) < MAX_TAIL else len(text)


def never_combines(character: str) -> bool:
    """Whether the character stays separate from those before it in every normal form."""
    if character < "\u0300":
        return True
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.category(first)[0] != "M" and not "\u1160" <= first <= "\u11ff"  # vowels and finals of Hangul


def affects_case(character: str) -> bool:
    """Whether the lower case of the letters around this character may depend on it."""
    return unicodedata.category(character) not in ("Lo", "Nd", "Zs", "Zl", "Zp", "Cc")
