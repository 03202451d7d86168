"""Two models as one: the mean of their distributions, in `eval`, `sample` and Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import charlstm
from tests.support.command_line import Result, assert_fails
from tests.support.command_line import charlstm as command
from tests.support.texts import ENGLISH

pytestmark = pytest.mark.slow


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs on one text, of other cells and sizes."""
    Path("corpus.txt").write_text(ENGLISH[:20_000])
    runs = tmp_path / "first", tmp_path / "second"
    first = ("--hidden", 48)
    second = ("--cell", "gru", "--hidden", 24, "--set", "model.head=all", "--seed", 2)
    for run, settings in zip(runs, (first, second), strict=True):
        result = command("train", "corpus.txt", "-o", run, "--epochs", 4, *settings)
        assert result.code == 0, result.err
    return runs


def evaluate(*arguments: object) -> dict[str, float]:
    result: Result = command("eval", "--json", *arguments)
    assert result.code == 0, result.err
    metrics: dict[str, float] = json.loads(result.out)
    return metrics


def test_the_mean_predicts_better_than_the_models_on_average(pair: tuple[Path, Path]) -> None:
    first, second = pair
    alone = [evaluate("-m", run)["loss_nats"] for run in pair]
    both = evaluate("-m", first, "--average", second)
    assert both["loss_nats"] == alone[0]
    assert both["averaged_loss_nats"] < sum(alone) / 2 - 0.001
    assert evaluate("-m", second, "--average", first)["averaged_loss_nats"] == pytest.approx(
        both["averaged_loss_nats"], abs=1e-6
    )
    assert evaluate("-m", first, "--average", first)["averaged_loss_nats"] == pytest.approx(alone[0], abs=1e-4)


def test_the_mean_adapts_and_is_mixed(pair: tuple[Path, Path]) -> None:
    first, second = pair
    plain, both = (evaluate("-m", first, "--average", second, *more) for more in ((), ("--dynamic", "--mix")))
    assert both["dynamic_loss_nats"] < plain["averaged_loss_nats"]
    assert both["mixed_loss_nats"] < both["dynamic_loss_nats"]
    assert "averaged_loss_nats" not in both


def test_every_distribution_sums_to_1_and_scores_are_those_of_eval(pair: tuple[Path, Path]) -> None:
    first, second = pair
    model = charlstm.load(first, average=second)
    states = model.network.initial_state(3)
    for ids in np.arange(30).reshape(10, 3):
        logits, states = model.network.step(ids, states)
        np.testing.assert_allclose(np.exp(logits).sum(1), 1, rtol=0, atol=1e-6)
    Path("text.txt").write_text(ENGLISH[20_000:20_500])
    metrics = evaluate("-m", first, "--average", second, "text.txt", "--unknown", "skip")
    text = "".join(c for c in ENGLISH[20_000:20_500] if c.encode() in model.vocabulary.symbols)
    assert -model.score(text).mean() == pytest.approx(metrics["averaged_loss_nats"], abs=1e-4)
    assert charlstm.evaluate(model, text).loss_nats == pytest.approx(metrics["averaged_loss_nats"], abs=1e-6)


def test_the_mean_is_the_same_read_in_streams_or_in_one(pair: tuple[Path, Path]) -> None:
    first, second = pair
    model = charlstm.load(first, average=second)
    assert all(symbol in model.vocabulary.symbols for symbol in (b"a", b" ", b"e"))
    text = "a eae ea  eaa" * 1500
    in_streams, in_one = (
        charlstm.evaluate(model, text, adaptation=adaptation).loss_nats
        for adaptation in (None, charlstm.AdaptationConfig(adapt_rate=0, adapt_decay=0))
    )
    assert in_streams == pytest.approx(in_one, abs=1e-4)


def test_clamped_units_leave_the_other_model_and_the_mean_as_they_are(pair: tuple[Path, Path]) -> None:
    first, second = pair
    plain = charlstm.load(first, average=second)
    clamped = plain.clamp({"0.1": 3.0}).clamp({"0.2": -3.0})
    states = clamped.network.initial_state(1)
    _, states = clamped.network.step(np.array([5]), states)
    _, expected = plain.network.step(np.array([5]), plain.network.initial_state(1))
    np.testing.assert_array_equal(states[0][1][0, [1, 2]], [3, -3])
    assert len(states) == len(expected)
    np.testing.assert_array_equal(states[-1][0], expected[-1][0])


def test_samples_are_drawn_from_the_mean(pair: tuple[Path, Path]) -> None:
    """They are others than those of each model; one depends on the seed and its index only, and order is no matter."""
    first, second = pair
    options = ("-l", 60, "--seed", 3)
    alone = [command("sample", "-m", run, *options).text for run in pair]
    both, swapped, several = (
        command("sample", *arguments, *options).text
        for arguments in (
            ("-m", first, "--average", second),
            ("-m", second, "--average", first),
            ("-m", first, "--average", second, "-n", 40, "--raw"),
        )
    )
    assert both not in alone
    assert swapped == both
    assert several.startswith(both.rstrip("\n"))


def test_the_mean_is_adapted_and_mixed_before_sampling(pair: tuple[Path, Path]) -> None:
    first, second = pair
    Path("style.txt").write_text("the cat and the dog sat on the mat. " * 30)
    options = ("-m", first, "--average", second, "-p", "the cat and", "-l", 60, "-t", 0.2, "--seed", 1)
    plain, adapted, mixed = (
        command("sample", *options, *more).text for more in ((), ("--adapt", "style.txt"), ("--mix", "style.txt"))
    )
    assert plain != adapted
    assert "the dog sat on the mat" in mixed
    assert "the dog" not in plain


def test_models_with_other_symbols_cannot_be_averaged(pair: tuple[Path, Path]) -> None:
    first, _ = pair
    Path("other.txt").write_text("another text, with a § in it. " * 100)
    assert command("train", "other.txt", "-o", "other", "--hidden", 8, "--epochs", 1).code == 0
    for name in ("eval", "sample"):
        assert_fails(command(name, "-m", first, "--average", "other"), 2, "--average", "symbols")
        assert_fails(command(name, "-m", first, "--average", "missing"), 2, "there is no model at missing")
    result = command("sample", "-m", first, "--average", first, "--adapt", "-", stdin=b"a text")
    assert_fails(result, 2, "--adapt reads a file, not stdin, with --average")
    assert_fails(command("eval", "-m", first, "--average", first, "--by", "reset"), 2, "give it without --average")
