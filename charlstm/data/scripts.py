"""The script of a character: Latin, Han, Cyrillic ... Python's own `unicodedata` does not know it.

The ranges are those of the Unicode Character Database 18.0 (Scripts.txt, (c) Unicode, Inc., Unicode License v3), for
the scripts that texts are mostly in; a range goes on over code points that are not assigned.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

COMMON, OTHER = "Common", "Other"
"""What all scripts share (spaces, digits, punctuation, accents), and the letters of those that are not listed."""

RANGES = {
    COMMON: (
        "b5 2b9-2c1 2c6-2d1 2ec 2ee 374 640 1ce9-1cec 1cee-1cf3 1cf5-1cf6 1cfa 2102 2107 210a-2113 2115 "
        "2119-211d 2124 2128 212c-212d 212f-2131 2133-2139 213c-213f 2145-2149 2e2f 3006 3031-3035 303c 30fc "
        "a717-a71f a788 a9cf ff70 ff9e-ff9f 1d400-1d7cb"
    ),
    "Latin": (
        "41-5a 61-7a aa ba c0-d6 d8-f6 f8-2b8 2e0-2e4 1d00-1d25 1d2c-1d5c 1d62-1d65 1d6b-1d77 1d79-1dbe "
        "1e00-1eff 2071 207f 2090-209f 212a-212b 2132 214e 2160-2188 2c60-2c7f a722-a787 a78b-a7ff ab30-ab5a "
        "ab5c-ab64 ab66-ab69 ab6c-ab6d fb00-fb06 ff21-ff3a ff41-ff5a 10780-107bf 1df00-1dff2 1dff5-1dfff"
    ),
    "Greek": (
        "370-373 375-37d 37f-384 386 388-3e1 3f0-3ff 1d26-1d2a 1d5d-1d61 1d66-1d6a 1dbf 1f00-1ffe 2126 ab65 "
        "10140-1018e 101a0 1d200-1d245 1dff3-1dff4"
    ),
    "Cyrillic": "400-484 487-52f 1c80-1c8a 1d2b 1d78 2de0-2dff a640-a69f fe2e-fe2f 1e030-1e08f",
    "Armenian": "531-58f fb13-fb17",
    "Hebrew": "591-5f4 fb1d-fb4f",
    "Arabic": (
        "600-604 606-60b 60d-61a 61c-61e 620-63f 641-64a 656-66f 671-6dc 6de-6ff 750-77f 870-8e1 8e3-8ff "
        "fb50-fd3d fd40-fdff fe70-fefc 10e60-10e7e 10ec2-10eff 1ee00-1eef1"
    ),
    "Syriac": "700-74f 860-86a",
    "Thaana": "780-7b1",
    "Devanagari": "900-950 955-963 966-97f a8e0-a8ff 11b00-11b0a",
    "Bengali": "980-9fe 11df0-11df1",
    "Gurmukhi": "a01-a76",
    "Gujarati": "a81-aff",
    "Oriya": "b01-b77",
    "Tamil": "b82-bfa 11fc0-11fff",
    "Telugu": "c00-c7f",
    "Kannada": "c80-cf3",
    "Malayalam": "d00-d7f",
    "Sinhala": "d81-df4 111e1-111f4",
    "Thai": "e01-e3a e40-e5b",
    "Lao": "e81-edf",
    "Tibetan": "f00-fd4 fd9-fda",
    "Myanmar": "1000-109f a9e0-a9fe aa60-aa7f 116d0-116e3",
    "Georgian": "10a0-10fa 10fc-10ff 1c90-1cbf 2d00-2d2d",
    "Hangul": "1100-11ff 302e-302f 3131-318e 3200-321e 3260-327e a960-a97c ac00-d7fb ffa0-ffdc",
    "Ethiopic": "1200-1399 2d80-2dde ab01-ab2e 1e7e0-1e7fe",
    "Cherokee": "13a0-13fd ab70-abbf",
    "Khmer": "1780-17f9 19e0-19ff",
    "Mongolian": "1800-1801 1804 1806-18aa 11660-1166c",
    "Hiragana": "3041-3096 309d-309f 1b001-1b11f 1b123 1b132-1b152 1f200",
    "Katakana": (
        "30a1-30fa 30fd-30ff 31f0-31ff 32d0-32fe 3300-3357 ff66-ff6f ff71-ff9d 1aff0-1b000 1b120-1b122 "
        "1b124-1b128 1b155-1b168"
    ),
    "Bopomofo": "2ea-2eb 3105-312f 31a0-31bf",
    "Han": "2e80-2fd5 3005 3007 3021-3029 3038-303b 3400-4dbf 4e00-9fff f900-fad9 16fe2-16fe3 16ff0-16ff6 20000-33479",
    "Yi": "a000-a4c6",
    "Coptic": "3e2-3ef 2c80-2cff",
    "Runic": "16a0-16ea 16ee-16f8",
    "Gothic": "10330-1034a",
}
"""First and last code points of each script, in hexadecimal; of what scripts share, those that are called letters."""


def find_scripts(points: NDArray[np.unsignedinteger]) -> list[str]:
    """The script of each of these code points, [length]."""
    firsts, lasts, names = table()
    at = np.searchsorted(firsts, points, side="right") - 1
    inside = (at >= 0) & (points <= lasts[at])
    return [names[i] if known else unlisted(point) for i, known, point in zip(at, inside, points.tolist(), strict=True)]


def unlisted(point: int) -> str:
    return OTHER if unicodedata.category(chr(point)).startswith("L") else COMMON


@cache
def table() -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """The ranges in ascending order: first and last code points, and names."""
    rows = []
    for name, ranges in RANGES.items():
        for span in ranges.split():
            first, _, last = span.partition("-")
            rows.append((int(first, 16), int(last or first, 16), name))
    firsts, lasts, names = zip(*sorted(rows), strict=True)
    return np.array(firsts), np.array(lasts), list(names)
