"""What of a sample stands in the text: the fast search beside the plain one."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charlstm.sampling import novelty as module
from charlstm.sampling.novelty import Novelty, measure_novelty
from charlstm.vocabulary import Codes, code_points
from tests.conftest import ENGLISH


def agrees(found: Novelty, sample: str, text: str, run: int) -> bool:
    """Whether it is as by definition, where every run of the sample is looked for in the text."""
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
    """Something new, or pieces of the text one after the other, or all of it."""
    cuts = st.integers(0, len(text))
    pieces = st.tuples(cuts, cuts).map(lambda cut: text[min(cut) : max(cut)])
    return draw(st.one_of(texts, st.just(text), st.lists(pieces, max_size=3).map("".join), texts.map(text.__add__)))


@given(st.data(), texts, sizes, st.integers(1, 9), sizes)
def test_it_finds_what_looking_for_every_run_finds(data: Draws, text: str, size: int, step: int, run: int) -> None:
    samples = data.draw(st.lists(samples_of(text), max_size=4))
    with patch.object(module, "BLOCK_CODES", step):
        found = measure_novelty([code_points(sample) for sample in samples], chunked(text, size), run)
    assert all(agrees(one, sample, text, run) for one, sample in zip(found, samples, strict=True))


@given(st.data(), texts, sizes, sizes)
def test_a_hash_that_hardly_tells_runs_apart_changes_nothing(data: Draws, text: str, size: int, run: int) -> None:
    samples = data.draw(st.lists(samples_of(text), max_size=4))
    with patch.object(module, "BASE", 1):  # the sum of the codes: every order of the same characters collides
        found = measure_novelty([code_points(sample) for sample in samples], chunked(text, size), run)
    assert all(agrees(one, sample, text, run) for one, sample in zip(found, samples, strict=True))


def test_a_run_across_a_border_is_found_whole_wherever_it_lies() -> None:
    sample = code_points("abcdefg")
    with patch.object(module, "BLOCK_CODES", 1):
        for before in range(30):
            text = "x" * before + "abcdefg" + "x" * 20
            assert measure_novelty([sample], chunked(text, 1), 3) == [Novelty(7, 0, 1.0)]


def test_a_quotation_is_found_in_a_sample() -> None:
    quoted = ENGLISH[100_000:100_050]
    before, after = "QZ" * 30, "XK" * 45
    (found,) = measure_novelty([code_points(before + quoted + after)], chunked(ENGLISH, 33_333))
    assert found == Novelty(longest=50, start=60, covered=50 / 200)


def test_bytes_are_looked_for_as_characters_are() -> None:
    text = np.frombuffer("三国演义".encode() * 3, np.uint8)
    sample = np.frombuffer("国演义三国演义".encode(), np.uint8)
    assert measure_novelty([sample], [text]) == [Novelty(21, 0, 1.0)]


def test_what_is_too_short_to_count_as_copied_still_has_a_longest_run() -> None:
    sample = ENGLISH[500:519]
    assert measure_novelty([code_points(sample)], chunked(ENGLISH, 1000)) == [Novelty(19, 0, 0.0)]


def test_one_character_a_million_times_is_no_trouble() -> None:
    text = np.full(1_000_000, ord("a"), np.uint32)
    samples = [code_points("a" * 500), code_points("b" + "a" * 30 + "b" + "a" * 19), code_points("c")]
    assert measure_novelty(samples, [text]) == [Novelty(500, 0, 1.0), Novelty(30, 1, 30 / 51), Novelty(0, 0, 0.0)]


def test_a_sample_that_is_the_text_or_more_than_it() -> None:
    whole = code_points(ENGLISH[:5000])
    more = np.concatenate([whole, whole[:1]])
    assert measure_novelty([whole], np.array_split(whole, 7)) == [Novelty(5000, 0, 1.0)]
    assert measure_novelty([more], [whole])[0].longest == 5000


def test_no_text_and_no_samples() -> None:
    nothing = np.empty(0, np.uint32)
    assert measure_novelty([], [nothing]) == []
    assert measure_novelty([nothing, code_points("a")], []) == [Novelty(0, 0, 0.0)] * 2
    assert measure_novelty([nothing], [code_points("text")]) == [Novelty(0, 0, 0.0)]
