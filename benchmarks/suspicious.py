"""Proofreading: how many typos inserted into a text are among its least likely characters.

    python benchmarks/suspicious.py MODEL TEXT [--typos 100] [--listed 100] [--seed 1] [--part 0.1]

MODEL is a bidirectional run or model file. In the last tenth of TEXT (`--part`), `--typos` letters are replaced by
others of the same case. Then its characters are ranked as by `charlstm score --worst`: by their probability given
both sides and, for comparison, given the text before them only. Precision is the share of the listed characters that
are typos, recall the share of the typos that are listed. They are equal if as many characters are listed as there are
typos.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

import numpy as np

from charlstm.cli.actions.score import find_least_likely
from charlstm.data.split import Tokens
from charlstm.evaluation.evaluate import score_characters
from charlstm.model.loading import load_torch_model
from charlstm.storage.locate import find_model
from charlstm.storage.model import ModelFile


def insert_typos(text: str, count: int, random: Random) -> tuple[str, list[int]]:
    """Return the text with typos, and their places."""
    letters = [place for place, character in enumerate(text) if character.isascii() and character.isalpha()]
    places = sorted(random.sample(letters, count))
    characters = list(text)
    for place in places:
        case = "abcdefghijklmnopqrstuvwxyz" if text[place].islower() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        characters[place] = random.choice([letter for letter in case if letter != text[place] and letter in text])
    return "".join(characters), places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--typos", type=int, default=100)
    parser.add_argument("--listed", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", type=float, default=0.1)
    arguments = parser.parse_args()
    file = ModelFile.load(find_model(arguments.model, {}))
    text = arguments.text.read_text("utf-8")
    text, places = insert_typos(
        text[round(len(text) * (1 - arguments.part)) :], arguments.typos, Random(arguments.seed)
    )
    ids = Tokens(file.vocabulary.encode(text).astype(file.vocabulary.dtype))
    found_scores = score_characters(load_torch_model(file), ids, file.vocabulary.bos)
    for name, scores in zip(("forward", "both_sides"), found_scores, strict=True):
        if scores is None:
            continue
        found = np.isin(find_least_likely(scores, arguments.listed), places).sum()
        print(
            f"{name:10} {found} typos among the {arguments.listed} least likely of "
            f"{len(text):,} characters: precision {found / arguments.listed:.2f}, recall {found / arguments.typos:.2f}"
        )


if __name__ == "__main__":
    main()
