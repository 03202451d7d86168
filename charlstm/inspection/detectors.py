"""What can be seen in a text at each position: columns, quotes, brackets, words and so on, computed without a model.

Every detector describes the text up to and including a character, which is what a unit knows after reading it. Two look
one character ahead: they are what a unit has to predict.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from charlstm.inspection.trace import Trace

Values = NDArray[np.float32]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]

Kind = Literal["number", "condition", "class"]


@dataclass(frozen=True)
class Detector:
    """A property of a text at each position.

    name: how it is called.
    kind: "number" is compared by correlation, "condition" is 0 or 1 and compared by the area under the ROC curve,
        "class" is the number of a class, such as that of the character.
    values: at each position, [T].
    """

    name: str
    kind: Kind
    values: Values


QUOTES = (("straight quotes", '"', '"'), ("curly quotes", "“", "”"), ("guillemets", "«", "»"))
CJK_QUOTES = (("CJK quotes", "「", "」"), ("double CJK quotes", "『", "』"))
BRACKETS = (
    ("parentheses", "(", ")"),
    ("square brackets", "[", "]"),
    ("braces", "{", "}"),
    ("angle brackets", "<", ">"),
)

WHITE_CODES = frozenset(map(ord, " \n\t\r"))

SENTENCE_ENDS = ".!?。！？"
COMMENT_STARTS = ("#", "//")

MAX_CLASSES = 32
"""The most frequent characters are a class each; all others are one."""

MAX_ENCLOSED = 2000
"""Most characters of a quotation or bracket: where a longer one is open, a closing mark is missing."""


def detect(text: str) -> list[Detector]:
    """Return all detectors of a text of T characters. Those that never occur are constant."""
    codes = np.array([ord(character) for character in text], np.int64)
    kinds = np.array([character_class(character) for character in text], np.int64)
    newline = codes == ord("\n")
    column = since(newline)
    letter, digit, space = kinds == LETTER, kinds == DIGIT, codes == ord(" ")
    word = letter | digit
    upper = np.array([character.isupper() for character in text], bool)
    numbers = {
        "column": column,
        "previous line length": previous_line(newline),
        "indentation": indentation(codes, newline),
        "position in word": run_length(word),
        "position in sentence": since(sentence_ends(codes)),
        "run of capitals": run_length(upper),
        "run of spaces": run_length(space),
        **{f"depth of {name}": depth(codes, opening, closing) for name, opening, closing in BRACKETS},
    }
    conditions = {
        **{f"inside {name}": inside(codes, opening, closing) for name, opening, closing in (*QUOTES, *CJK_QUOTES)},
        **{f"inside {name}": depth(codes, opening, closing) > 0 for name, opening, closing in BRACKETS},
        "inside comment": comments(text),
        "start of word": word & ~before(word),
        "digit": digit,
        "newline next": ahead(newline),
    }
    classes = {"previous character": limit_classes(codes), "class of previous character": kinds}
    return [
        *(Detector(name, "number", values.astype(np.float32)) for name, values in numbers.items()),
        *(Detector(name, "condition", values.astype(np.float32)) for name, values in conditions.items()),
        *(Detector(name, "class", values.astype(np.float32)) for name, values in classes.items()),
    ]


def detect_surprise(trace: Trace) -> list[Detector]:
    """Return how unlikely each character was for the model, and how uncertain it is of the next one, in nats."""
    predictions = trace.predictions["forward"]
    return [
        Detector("surprisal", "number", -predictions.log_probabilities),
        Detector("entropy of the prediction", "number", predictions.entropies),
    ]


LETTER, DIGIT, SPACE, PUNCTUATION, OTHER = range(5)
CLASS_NAMES = ("letter", "digit", "white space", "punctuation or symbol", "other")


def character_class(character: str) -> int:
    """Return the class of a character: letter, digit, white space, punctuation or symbol, other."""
    category = unicodedata.category(character)
    if category[0] in "LM":
        return LETTER
    if category[0] == "N":
        return DIGIT
    if character.isspace():
        return SPACE
    return PUNCTUATION if category[0] in "PS" else OTHER


def before(condition: Flags) -> Flags:
    """Return the condition at the position before, false at the first."""
    return np.concatenate([[False], condition[:-1]])


def ahead(condition: Flags) -> Flags:
    """Return the condition at the next position, false at the last."""
    return np.concatenate([condition[1:], [False]])


def since(condition: Flags) -> Indices:
    """Return how many characters were read since the condition was last true: 0 where it is true."""
    places = np.arange(len(condition))
    last: Indices = np.maximum.accumulate(np.where(condition, places, -1))
    return places - last  # as if it had been true before the beginning


def run_length(condition: Flags) -> Indices:
    """Return for how many characters up to and including this one the condition has been true."""
    return since(~condition)


def previous_line(newline: Flags) -> Indices:
    """Return the number of characters of the line before the one that a position is in, 0 in the first."""
    ends = np.flatnonzero(newline)
    lengths = np.diff(ends, prepend=-1) - 1
    return np.concatenate([[0], lengths])[np.cumsum(newline)]


def indentation(codes: Indices, newline: Flags) -> Indices:
    """Return by how many spaces and tabs the line of each position is indented, as far as it was read."""
    blank = (codes == ord(" ")) | (codes == ord("\t"))
    content_seen = count_in_line(~blank & ~newline, newline) > 0
    return count_in_line(blank & ~content_seen, newline)


def count_in_line(condition: Flags, newline: Flags) -> Indices:
    """Return how often the condition has been true since the line began."""
    total = np.cumsum(condition)
    at_start = np.maximum.accumulate(np.where(newline, total, 0))
    return total - at_start


def sentence_ends(codes: Indices) -> Flags:
    """Return where a sentence ends: at a mark before white space, or at an empty line."""
    marks, newline = np.isin(codes, [ord(mark) for mark in SENTENCE_ENDS]), codes == ord("\n")
    white = newline | (codes == ord(" "))
    wide = np.isin(codes, [ord(mark) for mark in SENTENCE_ENDS[3:]])  # no space follows these
    ends: Flags = (before(marks) & white) | wide | (newline & before(newline))
    return ends


def inside(codes: Indices, opening: str, closing: str) -> Flags:
    """Return where a quotation is open: from its opening mark to before its closing mark.

    Of two marks that look the same, one after white space and before a character can only open a quotation, one after a
    character and before white space can only close it.
    """
    if opening != closing:
        return depth(codes, opening, closing) > 0
    found, start = np.zeros(len(codes), bool), -1
    for place in np.flatnonzero(codes == ord(opening)).tolist():
        white_before = place == 0 or codes[place - 1] in WHITE_CODES
        white_after = place + 1 == len(codes) or codes[place + 1] in WHITE_CODES
        if start >= 0 and place - start <= MAX_ENCLOSED and not (white_before and not white_after):
            found[start:place] = True
            start = -1
        elif start >= 0 or white_before or not white_after:  # else it closes what was opened before the text begins
            start = place
    if start >= 0 and len(codes) - start <= MAX_ENCLOSED:
        found[start:] = True
    return found


def depth(codes: Indices, opening: str, closing: str) -> Indices:
    """Return how many brackets of a kind are open after each character. Those without a partner do not count."""
    steps = np.zeros(len(codes) + 1, np.int64)
    for start, end in match_brackets(codes, opening, closing):
        steps[start] += 1
        steps[end] -= 1
    return np.cumsum(steps)[:-1]


def match_brackets(codes: Indices, opening: str, closing: str) -> Iterator[tuple[int, int]]:
    """Yield the place of each opening bracket and of its closing one; the end of the text may be that of the last."""
    newlines = np.flatnonzero(codes == ord("\n"))
    open_places: list[int] = []
    for place in np.flatnonzero((codes == ord(opening)) | (codes == ord(closing))).tolist():
        if codes[place] == ord(opening):
            open_places.append(place)
        elif open_places:
            start = open_places.pop()
            if is_enclosed(start, place, newlines, one_line=opening == "<"):
                yield start, place
    for start in open_places:
        if is_enclosed(start, len(codes), newlines, one_line=opening == "<"):
            yield start, len(codes)


def is_enclosed(start: int, end: int, newlines: Indices, *, one_line: bool) -> bool:
    """Return whether brackets at these places enclose the text between them: < is more often a comparison."""
    lines = np.searchsorted(newlines, [start, end])
    return end - start <= MAX_ENCLOSED and not (one_line and lines[0] != lines[1])


def comments(text: str) -> Flags:
    """Return where a comment of a program is open: from # or // to before the end of the line."""
    found = np.zeros(len(text), bool)
    for match in re.finditer(r"(?m)(?:(?<![^\s])#|(?<!:)//)[^\n]*", text):
        found[match.start() : match.end()] = True
    return found


def limit_classes(ids: Indices) -> Indices:
    """Return the class of each symbol [T]: 0 to `MAX_CLASSES` - 1 for the most frequent, then one for all others."""
    symbols, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    rank = np.empty(len(symbols), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(symbols))
    classes: Indices = np.minimum(rank, MAX_CLASSES)[inverse]
    return classes
