"""Texts and settings that the tests share."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "corpora" / "english.txt").read_text("utf-8")

WORDS = "the fox and the dog sat on the mat\n"

SMALL = ("--hidden", "24", "--set", "model.embedding=12", "--batch-size", "4", "--seq-len", "16", "--device", "cpu")
"""Options of a model that trains in a second."""
