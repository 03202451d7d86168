"""Detectors that the user defines: where a regular expression matches."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from charlstm.errors import UsageError
from charlstm.inspection.detectors import Detector

MAX_SECONDS = 10
"""Seconds that an expression may take: with nested repetitions the time can be exponential in the length."""

SEARCH = """
import json, re, sys
pattern, text = json.load(sys.stdin)
print(json.dumps([match.span() for match in re.finditer(pattern, text)]))
"""
"""The search, which runs in a process of its own, since Python's `re` cannot be stopped."""


def detect_patterns(text: str, patterns: Sequence[str]) -> list[Detector]:
    """Return a condition for each regular expression, named /EXPRESSION/: true from the first character of a match on.

    Raises UsageError for an invalid expression, and for one that takes longer than `MAX_SECONDS`.
    """
    return [detect_pattern(text, pattern) for pattern in patterns]


def detect_pattern(text: str, pattern: str) -> Detector:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"--detect {pattern!r} is not a regular expression: {error}") from error
    values = np.zeros(len(text), np.float32)
    for start, end in find_matches(text, pattern):
        values[start:end] = 1
    return Detector(f"/{pattern}/", "condition", values)


def find_matches(text: str, pattern: str) -> list[tuple[int, int]]:
    """Return the first and last position of each match. Raises UsageError if it takes too long."""
    command = [sys.executable, "-I", "-S", "-c", SEARCH]
    data = json.dumps([pattern, text]).encode()
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=MAX_SECONDS, check=True)
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"--detect {pattern!r} is still being searched after {MAX_SECONDS} seconds",
            "avoid repetitions within repetitions, such as (a+)+",
        ) from error
    except subprocess.CalledProcessError as error:
        raise UsageError(f"--detect {pattern!r} cannot be searched", "simplify the expression") from error
    spans: list[tuple[int, int]] = json.loads(done.stdout)
    return spans
