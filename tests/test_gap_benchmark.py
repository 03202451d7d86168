"""`charlstm eval --gaps`: where gaps are hidden, what is read around them, and which are recovered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import charlstm as charlstm_package
from charlstm.infilling import benchmark
from charlstm.infilling.benchmark import HiddenGaps, contexts_at
from charlstm.infilling.context import Predictors
from charlstm.infilling.filler import SCORED_CONTEXT
from charlstm.sampling.network import prefill
from tests.support.command_line import assert_fails, charlstm
from tests.support.models import LETTERS, MODELS
from tests.support.texts import WORDS


def test_a_model_recovers_gaps_in_the_text_it_was_trained_on(bidirectional_run: Path) -> None:
    text = (WORDS * 12).encode()
    result = charlstm("eval", "-m", bidirectional_run, "-", "--gaps", 0.1, "--json", stdin=text)
    assert result.code == 0, result.err
    metrics = json.loads(result.text)
    assert metrics["gaps"] > 5
    assert metrics["gap_characters"] == pytest.approx(0.1 * len(text), rel=0.4)
    assert (
        metrics["gap_exact_match_gibbs"]
        >= metrics["gap_exact_match_candidates"]
        > metrics["gap_exact_match_forward"] - 0.2
    )
    assert metrics["gap_exact_match_gibbs"] > 0.9
    assert (metrics["gap_seed"], metrics["gap_length"]) == (1, "1..8")
    again = charlstm("eval", "-m", bidirectional_run, "-", "--gaps", 0.1, "--json", stdin=text)
    assert again.out == result.out


def test_gaps_can_be_single_characters(bidirectional_run: Path) -> None:
    arguments = ("--gaps", 0.02, "--gap-length", 1, "--seed", 3, "--json")
    metrics = json.loads(charlstm("eval", "-m", bidirectional_run, "-", *arguments, stdin=(WORDS * 12).encode()).text)
    assert metrics["gaps"] == metrics["gap_characters"]
    assert metrics["gap_seed"] == 3


def test_a_unidirectional_model_fills_gaps_forward_and_by_candidates(run: Path) -> None:
    metrics = json.loads(charlstm("eval", "-m", run, "--gaps", 0.02, "--gap-length", "2..3", "--json").text)
    assert [name for name in metrics if name.startswith("gap_exact_match")] == [
        "gap_exact_match_forward",
        "gap_exact_match_candidates",
    ]
    assert "gap exact match candidates" in charlstm("eval", "-m", run, "--gaps", 0.02, "--gap-length", "2").text


@pytest.mark.parametrize("length", ["0", "8..1", "1..101", "x", "1..", "1...3"])
def test_invalid_gap_lengths_are_errors_of_one_sentence(run: Path, length: str) -> None:
    assert_fails(charlstm("eval", "-m", run, "--gaps", 0.1, "--gap-length", length), 2, "--gap-length", repr(length))


def test_methods_that_recover_no_gap_are_reported_and_seed_0_is_valid(run: Path) -> None:
    table = charlstm("eval", "-m", run, "--gaps", 0.05, "--gap-length", 40, "--seed", 0).text
    rows = dict(line.rsplit(None, 1) for line in table.splitlines())
    assert rows["gap seed"] == "0"
    assert rows["gap exact match forward"] == rows["gap exact match candidates"] == "0.0000"


def test_a_long_text_is_read_only_as_far_as_needed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "MAX_GAPS", 3)
    result = charlstm("eval", "-m", run, "--gaps", 0.05, "--gap-length", 4, "--json")
    assert json.loads(result.text)["gaps"] == 3
    assert "the first 280 of" in result.err


def test_gaps_longer_than_every_document_are_an_error() -> None:
    with pytest.raises(charlstm_package.CharlstmError, match=r"no document has room for a gap of 4 to 5 characters"):
        HiddenGaps.draw(np.tile([1, 2, 3, 0], 200), np.array([0]), 0.2, 4, 5, np.random.default_rng(0))


def test_invalid_shares_are_errors_of_one_sentence(run: Path) -> None:
    for share in (0.7, 0, "nan", -1):
        assert_fails(charlstm("eval", "-m", run, "--gaps", share), 2, "--gaps")
    assert_fails(charlstm("eval", "-m", run, "-", "--gaps", 0.1, stdin=b"the man"), 1, "7 characters", "--gaps")


@given(st.integers(300, 2000), st.floats(0.01, 0.5), st.integers(1, 8), st.integers(0, 7), st.integers(0, 9))
def test_gaps_do_not_overlap_and_hide_the_requested_share(
    size: int, share: float, shortest: int, more: int, seed: int
) -> None:
    ids = np.random.default_rng(seed).integers(1, 5, size)
    longest = shortest + more
    count = int((size - 2 * SCORED_CONTEXT) * share / ((shortest + longest) / 2))
    if count < 1:
        with pytest.raises(charlstm_package.CharlstmError, match=f"{size:,} characters"):
            HiddenGaps.draw(ids, np.array([0]), share, shortest, longest, np.random.default_rng(seed))
        return
    hidden = HiddenGaps.draw(ids, np.array([0]), share, shortest, longest, np.random.default_rng(seed))
    ends = hidden.starts + hidden.lengths
    assert len(hidden.starts) == count
    assert (ends[:-1] <= hidden.starts[1:]).all()
    assert hidden.starts[0] >= SCORED_CONTEXT
    assert ends[-1] <= size - SCORED_CONTEXT
    assert set(hidden.lengths.tolist()) <= set(range(shortest, longest + 1))


def test_no_gap_contains_the_end_of_a_document() -> None:
    ids = np.tile([1, 2, 3, 0], 200)
    hidden = HiddenGaps.draw(ids, np.array([0]), 0.2, 1, 3, np.random.default_rng(0))
    assert all(
        0 not in ids[begin : begin + length] for begin, length in zip(hidden.starts, hidden.lengths, strict=True)
    )


def test_the_context_of_a_gap_is_that_of_a_single_pass_over_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "BENCHMARK_STREAMS", 4)
    monkeypatch.setattr(benchmark, "BENCHMARK_WARMUP", 300)  # longer than the text
    network = Predictors.from_file(MODELS[True]).forward
    ids = np.random.default_rng(0).integers(LETTERS.size, size=90)
    places = np.array([60, 0, 1, 22, 23, 24, 89])
    found = contexts_at(network, ids, 0, places)
    for row, place in enumerate(places):
        read, states = prefill(network, np.concatenate([[0], ids[:place]]))
        np.testing.assert_allclose(found.head_input[row], read[0], atol=1e-6)
        for mine, theirs in zip(found.states, states, strict=True):
            np.testing.assert_allclose([part[row] for part in mine], [part[0] for part in theirs], atol=1e-6)


def test_results_already_yielded_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "MAX_ROWS", 128)  # two gaps per batch
    ids = np.random.default_rng(0).integers(LETTERS.size, size=200)
    hidden = HiddenGaps(np.array([30, 60, 90, 120]), np.array([2, 2, 2, 3]))
    predictors = Predictors.from_file(MODELS[False])
    results = list(benchmark.fill_hidden_gaps(predictors, ids, 0, hidden, np.random.default_rng(0)))
    assert [(result.gaps, result.characters) for result in results] == [(2, 4), (3, 6), (4, 9)]
