"""A network mixed with an n-gram model: normalized, causal, and better on a text that repeats itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from charlstm.evaluation.metrics import log_probabilities_of
from charlstm.sampling.mixture import Before, Mixture, RunCounts, follow
from tests.support.command_line import assert_fails, charlstm

SIZE = 5
TEXTS = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=120).map(lambda ids: np.array(ids, np.int64))


def network_of(length: int, seed: int) -> NDArray[np.float32]:
    """Return distributions [length, SIZE] that say nothing of the text."""
    logits = np.random.default_rng(seed).standard_normal((length, SIZE))
    found: NDArray[np.float32] = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype("f")
    return found


@given(TEXTS, st.integers(0, 99))
def test_every_distribution_sums_to_1(ids: NDArray[np.int64], seed: int) -> None:
    mixed = Mixture(SIZE).read(network_of(len(ids), seed), ids)
    np.testing.assert_allclose(np.exp(mixed).sum(1), 1, rtol=0, atol=1e-6)
    counts = RunCounts(SIZE)
    before: Before = ()
    for symbol in ids.tolist():
        for p in counts.predict(before):
            assert abs(p.sum() - 1) < 1e-6
            assert (p > 0).all()
        counts.add(before, symbol)
        before = follow(before, symbol)


@given(TEXTS, st.integers(0, 99), st.integers(0, 119), st.integers(1, SIZE - 1))
def test_a_later_character_changes_no_earlier_distribution(
    ids: NDArray[np.int64], seed: int, place: int, shift: int
) -> None:
    place %= len(ids)
    changed = ids.copy()
    changed[place] = (changed[place] + shift) % SIZE
    network = network_of(len(ids), seed)
    before, after = (Mixture(SIZE).read(network, text) for text in (ids, changed))
    np.testing.assert_array_equal(before[: place + 1], after[: place + 1])


@given(TEXTS, st.integers(0, 99), st.integers(1, 50))
def test_windows_change_nothing(ids: NDArray[np.int64], seed: int, length: int) -> None:
    network, mixture = network_of(len(ids), seed), Mixture(SIZE)
    parts = [mixture.read(network[k : k + length], ids[k : k + length]) for k in range(0, len(ids), length)]
    np.testing.assert_array_equal(np.concatenate(parts), Mixture(SIZE).read(network, ids))


def test_a_text_that_repeats_itself_is_learned() -> None:
    """A network that knows nothing costs log 5 nats per symbol; the repeated phrase soon costs a tenth."""
    phrase = np.random.default_rng(1).integers(0, SIZE, 50)
    ids = np.tile(phrase, 40)
    network = np.full((len(ids), SIZE), -np.log(SIZE), np.float32)
    losses = -log_probabilities_of(ids, Mixture(SIZE).read(network, ids))
    assert losses[-200:].mean() < 0.2 * np.log(SIZE)


def test_eval_adds_the_metrics_of_the_mixture(run: Path) -> None:
    Path("text.txt").write_text("a list of the names of the hunters of the hills; " * 40)
    plain, mixed, both = (
        json.loads(charlstm("eval", "-m", run, "text.txt", "--json", *options).out)
        for options in ((), ("--mix",), ("--mix", "--dynamic"))
    )
    assert "mixed_loss_nats" not in plain
    assert mixed["mixed_loss_nats"] < 0.7 * mixed["loss_nats"]
    assert mixed["loss_nats"] == plain["loss_nats"]
    assert both["mixed_bpc"] < both["dynamic_bpc"]


def test_the_mixture_goes_with_everything_except_by(run: Path) -> None:
    failed = charlstm("eval", "-m", run, "--mix", "--by", "reset")
    assert failed.code == 2
    assert "give it without --mix" in failed.err


def test_samples_mixed_with_a_text_repeat_it(run: Path) -> None:
    """And a sample depends on the seed and its index only, as without --mix."""
    phrase = "the hunters of the hills sang to the moon; "
    Path("text.txt").write_text(phrase * 60)
    options = ("-m", run, "-p", "the hunters of", "-l", 60, "-t", 0.3, "--seed", 2, "--no-echo")
    plain, mixed, several = (
        charlstm("sample", *options, *more).text for more in ((), ("--mix", "text.txt"), ("--mix", "text.txt", "-n", 3))
    )
    assert " the hills sang to the moon" in mixed
    assert " the hills sang to the moon" not in plain
    assert several.splitlines()[0] == mixed.splitlines()[0]


def test_mix_reads_a_file_only(run: Path) -> None:
    assert_fails(charlstm("sample", "-m", run, "--mix", "-", stdin=b"text"), 2, "--mix reads a file, not stdin")
    assert_fails(charlstm("sample", "-m", run, "--mix", "missing.txt"), 2, "missing.txt")
