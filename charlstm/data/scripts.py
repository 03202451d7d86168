"""The script of a character (Latin, Han, Cyrillic, ...), from its Unicode name.

The standard library does not include Unicode's script property. This module approximates it by the first word of the
name of a letter, mark or number, and differs from it in these cases:

* Letters in a special style (full width, mathematical, superscript) count as the letters they are based on.
* Marks and modifier letters count as a script if their name starts with it, and otherwise as common: U+064B ARABIC
  FATHATAN is Arabic, U+2DE0 COMBINING CYRILLIC LETTER BE is common.
* Symbols and punctuation are common, also those of one script, such as Han radicals and the Arabic comma.
* Characters that are newer than the Unicode version of this Python are common.
"""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

COMMON_SCRIPT = "Common"
"""What several scripts share: spaces, digits, punctuation, symbols and accents."""

OTHER_SCRIPT = "Other"
"""The letters of scripts that are not listed here."""

LISTED_SCRIPTS = (
    *("Latin", "Greek", "Cyrillic", "Armenian", "Georgian", "Coptic", "Gothic", "Runic", "Cherokee"),
    *("Hebrew", "Arabic", "Syriac", "Thaana", "Ethiopic", "Mongolian"),
    *("Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala"),
    *("Thai", "Lao", "Tibetan", "Myanmar", "Khmer"),
    *("Hangul", "Hiragana", "Katakana", "Bopomofo", "Yi"),
)
"""The scripts whose characters' names start with the name of the script; Han is the other one that is listed."""

BY_FIRST_WORD = {"CJK": "Han", "IDEOGRAPHIC": "Han", "HENTAIGANA": "Hiragana"} | {
    name.upper(): name for name in LISTED_SCRIPTS
}
"""The script by the first word of a character's name."""


def find_scripts(points: NDArray[np.unsignedinteger]) -> list[str]:
    """Return the script of each of these code points, [length]."""
    return [find_script(chr(point)) for point in points.tolist()]


def find_script(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] not in "LMN":
        return COMMON_SCRIPT
    plain = unicodedata.normalize("NFKC", character)[0]  # without the style, such as full width
    unlisted = OTHER_SCRIPT if category[0] == "L" and category != "Lm" else COMMON_SCRIPT
    return BY_FIRST_WORD.get(first_word(character)) or BY_FIRST_WORD.get(first_word(plain), unlisted)


def first_word(character: str) -> str:
    return unicodedata.name(character, "").partition(" ")[0]
