"""`charlstm eval --by`: where the loss of a model is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.inspection.categories import loss_by_category
from charlstm.inspection.ngrams import NgramModel, share_avoided
from charlstm.text_model import load
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ENGLISH

TEXT = ENGLISH[36_000:39_000]


def rows(run: Path, by: str, text: str = TEXT) -> list[dict[str, Any]]:
    result = charlstm("eval", "-m", run, "-", "--by", by, "--json", stdin=text.encode())
    assert result.code == 0, result.err
    found: list[dict[str, Any]] = json.loads(result.text)["rows"]
    return found


def test_the_losses_of_the_categories_are_those_of_their_characters(run: Path) -> None:
    found = rows(run, "detector")
    losses = -load(run).score(TEXT)
    newlines = np.array([character == "\n" for character in TEXT])
    by_name = {(row["detector"], row["value"]): row for row in found}
    ends = by_name["next character", "line ends"]
    assert ends["characters"] == newlines.sum()
    assert ends["loss_nats"] == pytest.approx(losses[newlines].mean(), abs=1e-3)
    after = by_name["column", "0"]
    assert after["loss_nats"] == pytest.approx(losses[1:][newlines[:-1]].mean(), abs=1e-3)
    kinds = [row for row in found if row["detector"] == "next character"]
    assert sum(row["characters"] for row in kinds) <= len(TEXT)
    total = sum(row["characters"] for row in found if row["detector"] == "class of previous character")
    assert total == pytest.approx(len(TEXT) - 1, abs=40)


def test_the_table_has_a_row_for_each_category(run: Path) -> None:
    result = charlstm("eval", "-m", run, "-", "--by", "detector", stdin=TEXT.encode())
    assert result.text.splitlines()[0].split() == ["detector", "value", "characters", "loss", "nats"]
    assert "line ends" in result.text


def test_the_loss_falls_with_the_characters_since_a_reset(run: Path) -> None:
    found = rows(run, "reset")
    losses = [row["loss_nats"] for row in found]
    assert losses[0] > losses[2] > losses[-1]
    assert found[0]["characters_since_reset"] == "1" and found[-1]["characters_since_reset"] == "201 to 500"
    starts = [start for offset in range(0, 500, 50) for start in range(offset, len(TEXT) - 499, 500)]
    assert found[0]["characters"] == len(starts)
    expected = np.mean([-load(run).score(TEXT[start : start + 3])[1] for start in starts])
    assert found[1]["loss_nats"] == pytest.approx(expected, abs=1e-3)
    short = charlstm("eval", "-m", run, "-", "--by", "reset", stdin=b"short")
    assert_fails(short, 2, "needs a text of at least 500 characters")


def test_ngrams_of_the_training_text_avoid_some_errors(run: Path) -> None:
    found = rows(run, "ngram")
    assert [row["n"] for row in found] == list(range(1, 10))
    assert 0 <= found[0]["avoided_by_ngram"] < found[-1]["avoided_by_ngram"] < 1
    assert found[0]["share_of_characters"] == pytest.approx(
        float((load(run).score(TEXT) < np.log(0.5)).mean()), abs=1e-3
    )


@given(st.text("ab ", min_size=2, max_size=40), st.text("ab ", min_size=1, max_size=20), st.integers(1, 4))
def test_an_ngram_predicts_by_the_longest_run_that_it_knows(training: str, text: str, order: int) -> None:
    counts = Counter(training[k : k + n] for n in range(1, order + 1) for k in range(len(training) - n + 1))
    follows = Counter(training[k : k + n] for n in range(order) for k in range(len(training) - n))
    ids, known = (np.array([ord(c) for c in each]) for each in (text, training))
    p = NgramModel(known, order).probabilities(ids, order)
    for t in range(len(text)):
        contexts = [text[t - n : t] for n in range(min(order - 1, t), 0, -1)]
        best = next((c for c in contexts if follows[c]), "")
        total = follows[best] if best else len(training)
        assert p[t] == pytest.approx(counts[best + text[t]] / total, abs=1e-6)


def test_without_errors_nothing_is_avoided() -> None:
    ids = np.array([1, 2, 1, 2])
    assert share_avoided(np.zeros(4, np.float32), NgramModel(ids, 2), ids, 2) == 0
    assert share_avoided(np.full(4, -9, np.float32), NgramModel(ids, 2), ids, 2) == 1.0


def test_each_range_of_a_number_has_its_characters() -> None:
    text = "ab " * 40 + "\n"
    found = {
        row.value: row.characters
        for row in loss_by_category(text, np.zeros(len(text), np.float32))
        if row.detector == "column"
    }
    assert found == {"20 to 39": 20, "40 to 79": 40, "80 or more": 41}


@pytest.mark.parametrize("other", [("--dynamic",), ("--gaps", "0.1")])
def test_by_is_a_table_of_its_own(run: Path, other: tuple[str, ...]) -> None:
    assert_fails(charlstm("eval", "-m", run, "--by", "reset", *other), 2, "--by shows the loss itself")
