"""Copied runs of a sample: the fast search agrees with a plain one."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charlstm.sampling import novelty as module
from charlstm.sampling.novelty import Novelty, measure_novelty
from charlstm.vocabulary import Codes, code_points
from tests.support.texts import ENGLISH


def agrees(found: Novelty, sample: str, text: str, run: int) -> bool:
    """Compare a result with the definition: look for every run of the sample in the text."""
    n = len(sample)
    lengths = [max(k for k in range(n - i + 1) if sample[i : i + k] in text) for i in range(n)]
    covered = sum(any(i - j < lengths[j] >= run for j in range(i + 1)) for i in range(n))
    assert found.longest == max(lengths, default=0)
    assert found.covered == (covered / n if n else 0)
    return found.longest == 0 or lengths[found.start] == found.longest


def chunked(text: str, size: int) -> list[Codes]:
    return [code_points(text[i : i + size]) for i in range(0, len(text), size)]


Draws = st.DataObject
sizes = st.integers(1, 7)
texts = st.one_of(
    st.text("ab", max_size=60),
    st.text("abcd", max_size=60),
    st.text("a", max_size=60),
    st.tuples(st.text("ab三", min_size=1, max_size=5), st.integers(1, 12)).map(lambda pair: pair[0] * pair[1]),
)


@st.composite
def samples_of(draw: st.DrawFn, text: str) -> str:
    """Draw a new text, or pieces of the given one joined, or all of it."""
    cuts = st.integers(0, len(text))
    pieces = st.tuples(cuts, cuts).map(lambda cut: text[min(cut) : max(cut)])
    return draw(st.one_of(texts, st.just(text), st.lists(pieces, max_size=3).map("".join), texts.map(text.__add__)))


@given(st.data(), texts, sizes, st.integers(1, 9), sizes)
def test_the_search_by_hashes_finds_the_same_runs_as_a_plain_search(
    data: Draws, text: str, size: int, step: int, run: int
) -> None:
    samples = data.draw(st.lists(samples_of(text), max_size=4))
    with patch.object(module, "BLOCK_CODES", step):
        found = measure_novelty([code_points(sample) for sample in samples], chunked(text, size), run)
    assert all(agrees(one, sample, text, run) for one, sample in zip(found, samples, strict=True))


@given(st.data(), texts, sizes, sizes)
def test_colliding_hashes_do_not_change_the_result(data: Draws, text: str, size: int, run: int) -> None:
    samples = data.draw(st.lists(samples_of(text), max_size=4))
    with patch.object(module, "BASE", 1):  # the sum of the codes: every order of the same characters collides
        found = measure_novelty([code_points(sample) for sample in samples], chunked(text, size), run)
    assert all(agrees(one, sample, text, run) for one, sample in zip(found, samples, strict=True))


def test_a_run_across_block_borders_is_found_whole() -> None:
    sample = code_points("abcdefg")
    with patch.object(module, "BLOCK_CODES", 1):
        for before in range(30):
            text = "x" * before + "abcdefg" + "x" * 20
            assert measure_novelty([sample], chunked(text, 1), 3) == [Novelty(7, 0, 1.0)]


def test_a_quotation_is_found_with_its_start_and_share() -> None:
    quoted = ENGLISH[100_000:100_050]
    before, after = "QZ" * 30, "XK" * 45
    (found,) = measure_novelty([code_points(before + quoted + after)], chunked(ENGLISH, 33_333))
    assert found == Novelty(longest=50, start=60, covered=50 / 200)


def test_bytes_are_searched_like_characters() -> None:
    text = np.frombuffer("三国演义".encode() * 3, np.uint8)
    sample = np.frombuffer("国演义三国演义".encode(), np.uint8)
    assert measure_novelty([sample], [text]) == [Novelty(21, 0, 1.0)]


def test_a_run_too_short_to_count_as_copied_is_still_the_longest() -> None:
    sample = ENGLISH[500:519]
    assert measure_novelty([code_points(sample)], chunked(ENGLISH, 1000)) == [Novelty(19, 0, 0.0)]


def test_a_text_of_one_repeated_character_is_searched_in_time() -> None:
    text = np.full(1_000_000, ord("a"), np.uint32)
    samples = [code_points("a" * 500), code_points("b" + "a" * 30 + "b" + "a" * 19), code_points("c")]
    assert measure_novelty(samples, [text]) == [Novelty(500, 0, 1.0), Novelty(30, 1, 30 / 51), Novelty(0, 0, 0.0)]


def test_a_sample_may_be_the_whole_text_or_longer() -> None:
    whole = code_points(ENGLISH[:5000])
    more = np.concatenate([whole, whole[:1]])
    assert measure_novelty([whole], np.array_split(whole, 7)) == [Novelty(5000, 0, 1.0)]
    assert measure_novelty([more], [whole])[0].longest == 5000


def test_an_empty_text_or_sample_has_no_copied_runs() -> None:
    nothing = np.empty(0, np.uint32)
    assert measure_novelty([], [nothing]) == []
    assert measure_novelty([nothing, code_points("a")], []) == [Novelty(0, 0, 0.0)] * 2
    assert measure_novelty([nothing], [code_points("text")]) == [Novelty(0, 0, 0.0)]
