"""Sampling from logits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from charlstm.config import SamplingConfig
from charlstm.sampling import filters
from charlstm.sampling.repeats import RepeatIndex

logits_ = arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 20)), elements=st.floats(-30, 30, width=32))
shares = st.floats(0.01, 1)
points = st.floats(0, 1, exclude_max=True)


def normalized(p: np.ndarray) -> np.ndarray:
    return np.asarray(p / p.sum(axis=1, keepdims=True))


@given(logits_)
def test_weights_at_temperature_1_are_proportional_to_the_softmax(logits: np.ndarray) -> None:
    np.testing.assert_allclose(
        normalized(filters.logits_to_weights(logits, 1)), np.exp(filters.log_softmax(logits)), atol=1e-5
    )


@given(logits_, st.floats(0.1, 10))
def test_a_temperature_raises_the_probabilities_to_its_inverse_power(logits: np.ndarray, temperature: float) -> None:
    p = np.exp(filters.log_softmax(logits).astype(np.float64) / temperature)
    np.testing.assert_allclose(normalized(filters.logits_to_weights(logits, temperature)), normalized(p), atol=1e-4)


@given(logits_, st.integers(1, 25))
def test_top_k_keeps_the_k_most_likely_ids_and_ties(logits: np.ndarray, k: int) -> None:
    p = filters.logits_to_weights(logits, 1)
    for row, kept in zip(p, filters.top_k(p, k), strict=True):
        least = sorted(row)[-min(k, len(row))]
        np.testing.assert_array_equal(kept, np.where(row >= least, row, 0))


@given(logits_, shares)
def test_top_p_keeps_the_fewest_ids_that_have_the_share(logits: np.ndarray, share: float) -> None:
    p = normalized(filters.logits_to_weights(logits, 1))
    for row, kept in zip(p, filters.top_p(p, share), strict=True):
        assert kept.sum() >= share * row.sum() - 1e-5
        assert kept.sum() - kept[kept > 0].min() < share * row.sum() + 1e-5
        assert kept.max() == row.max()
        assert row[kept == 0].max(initial=0) <= kept[kept > 0].min()


@given(logits_, shares)
def test_min_p_keeps_ids_with_this_share_of_the_largest_probability(logits: np.ndarray, share: float) -> None:
    p = filters.logits_to_weights(logits, 1)
    kept = filters.min_p(p, share)
    np.testing.assert_array_equal(kept > 0, (p >= np.float32(share) * p.max(axis=1, keepdims=True)) & (p > 0))


@given(logits_, points, st.integers(0, 5), shares, st.floats(0, 1, width=32))
def test_a_drawn_id_has_passed_every_filter(logits: np.ndarray, u: float, k: int, p: float, m: float) -> None:
    config = SamplingConfig(temperature=0.7, top_k=k, top_p=p, min_p=m)
    weights = filters.logits_to_weights(logits, 0.7)
    kept = filters.top_p(filters.top_k(weights, k) if k else weights, p)
    ids = filters.sample_ids(logits, config, np.full(len(logits), u))
    for row, i in zip(kept, ids, strict=True):
        assert row[i] > 0


@given(logits_, points)
def test_temperature_0_takes_the_most_likely_id(logits: np.ndarray, u: float) -> None:
    ids = filters.sample_ids(logits, SamplingConfig(temperature=0), np.full(len(logits), u))
    np.testing.assert_array_equal(ids, logits.argmax(axis=1))


def test_ids_are_drawn_in_proportion_to_their_weights() -> None:
    p = np.array([[0.1, 0.0, 0.6, 0.3]], np.float32)
    u = np.random.default_rng(1).random(20_000)
    counts = np.bincount(filters.sample_categorical(np.repeat(p, len(u), axis=0), u), minlength=4) / len(u)
    np.testing.assert_allclose(counts, p[0], atol=0.015)
    assert counts[1] == 0


def test_a_very_low_temperature_does_not_overflow() -> None:
    logits = np.array([[3.0, 2.0, -1e4]], np.float32)
    assert filters.sample_ids(logits, SamplingConfig(temperature=1e-9), np.array([0.999])) == [0]


@given(logits_, st.lists(st.lists(st.integers(0, 19), max_size=5), min_size=3, max_size=3))
def test_a_masked_id_is_impossible_and_the_others_keep_their_logits(logits: np.ndarray, lists: list[list[int]]) -> None:
    symbols = [[i for i in row if i < logits.shape[1]] for row in lists[: len(logits)]]
    before = logits.copy()
    masked = filters.mask_symbols(logits, symbols)
    np.testing.assert_array_equal(logits, before)
    for row, kept, excluded in zip(logits, masked, symbols, strict=True):
        for i in range(len(row)):
            assert kept[i] == (-np.inf if i in excluded else row[i])


@given(st.integers(1, 6), st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_a_repeat_index_finds_the_ids_that_would_repeat_a_run(length: int, text: list[int], more: list[int]) -> None:
    index = RepeatIndex(length, text).branch()
    for i in more:
        index.add(i)
    whole = [*text, *more]
    runs = [whole[start : start + length] for start in range(len(whole) - length + 1)]
    repeating = {i for i in range(3) if len(whole) >= length - 1 and [*whole, i][-length:] in runs}
    assert sorted(index.repeating_symbols()) == sorted(repeating)
