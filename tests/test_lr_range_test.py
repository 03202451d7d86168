"""`charlstm train --find-lr`: the learning-rate range test, the rate that it suggests and the chart that it draws."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from math import log
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.cli.chart import Line, draw_chart
from charlstm.cli.ticks import choose_decade_ticks
from charlstm.config import Config
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError, DivergedError
from charlstm.training.lr_range_test import (
    HIGHEST_LR,
    LOWEST_LR,
    TEST_STEPS,
    RangeTestStep,
    run_range_test,
    suggest_rate,
)
from charlstm.training.trainer import Trainer
from tests.support.command_line import Result, assert_fails, charlstm
from tests.support.texts import ENGLISH, SMALL

pytestmark = pytest.mark.slow


@pytest.fixture
def found(corpus: Path) -> Result:
    return charlstm("train", corpus, *SMALL, "--find-lr")


def test_find_lr_writes_a_rate_that_training_accepts(corpus: Path, found: Result) -> None:
    assert found.code == 0, found.err
    assert LOWEST_LR <= float(found.text) <= HIGHEST_LR / 10
    assert len(found.text.strip().replace(".", "").lstrip("0")) <= 2
    trained = charlstm("train", corpus, *SMALL, "--epochs", 1, "--lr", found.text)
    assert trained.code == 0, trained.err


def test_the_suggested_rate_trains_a_better_model_than_rates_far_from_it(corpus: Path, found: Result) -> None:
    def loss(rate: float) -> float:
        charlstm("train", corpus, *SMALL, "--lr", rate, "--epochs", 4, "--overwrite")
        return float(charlstm("eval", "--json").text.split('"loss_nats": ')[1].split(",")[0])

    best = float(found.text)
    assert loss(best) < min(loss(best / 30), loss(min(best * 100, 10)))


def test_find_lr_draws_the_curve_on_stderr_and_writes_no_file(found: Result) -> None:
    assert "⠉" in found.err
    assert f"▲ {found.text.strip()}" in found.err
    assert "1e-05" in found.err
    assert "\x1b" not in found.err
    assert {path.name for path in Path().iterdir()} == {"little.txt"}


def test_find_lr_suggests_the_same_rate_for_the_same_settings(corpus: Path, found: Result) -> None:
    assert charlstm("train", corpus, *SMALL, "--find-lr").out == found.out


def test_find_lr_with_quiet_writes_only_the_rate(corpus: Path, found: Result) -> None:
    quiet = charlstm("train", corpus, *SMALL, "--find-lr", "-q")
    assert (quiet.out, quiet.err) == (found.out, "")


def test_find_lr_leaves_an_existing_run_unchanged(corpus: Path) -> None:
    charlstm("train", corpus, *SMALL, "--epochs", 1)
    before = {path: path.read_bytes() for path in Path("runs/little").iterdir()}
    assert charlstm("train", corpus, *SMALL, "--find-lr").code == 0
    assert {path: path.read_bytes() for path in Path("runs/little").iterdir()} == before


@pytest.mark.parametrize("option", ["--resume", "--overwrite", "--dry-run", "--init-from=x"])
def test_find_lr_cannot_be_combined_with_options_that_train_or_save(corpus: Path, option: str) -> None:
    assert_fails(charlstm("train", corpus, *SMALL, "--find-lr", option), 2, "--find-lr", option.partition("=")[0])


def test_find_lr_rejects_a_corpus_too_small_for_the_settings() -> None:
    Path("short.txt").write_text("too short by far")
    streams = ("--batch-size", 16, "--seq-len", 64)
    assert_fails(charlstm("train", "short.txt", *streams, "--find-lr"), 1, "14 characters", "--batch-size")


def test_ctrl_c_ends_find_lr_with_status_130(corpus: Path) -> None:
    command = [sys.executable, "-m", "charlstm", "train", str(corpus), "--find-lr", "--hidden", "600"]
    command += ["--batch-size", "8", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as finding:
        assert finding.stderr
        assert any("testing learning rates" in line for line in finding.stderr)
        finding.send_signal(signal.SIGINT)
        out, err = finding.communicate(timeout=60)
    assert (finding.returncode, out) == (130, "")
    assert "Traceback" not in err


def curve_of(losses: list[float]) -> list[RangeTestStep]:
    """Return the curve of a whole test with these losses."""
    last = len(losses) - 1
    return [
        RangeTestStep(k / last, LOWEST_LR * (HIGHEST_LR / LOWEST_LR) ** (k / last), loss)
        for k, loss in enumerate(losses)
    ]


def test_the_suggested_rate_is_a_tenth_of_the_rate_with_the_lowest_loss() -> None:
    assert suggest_rate(curve_of([4.2, 4.0, 3.3, 2.1, 2.6, 5.0])) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "losses", [[4.2] * 20, [4.2 + k / 100 for k in range(20)], [4.2 - k % 2 / 50 for k in range(20)]]
)
def test_no_rate_is_suggested_for_a_loss_that_never_falls(losses: list[float]) -> None:
    with pytest.raises(CharlstmError, match="the loss fell at no learning rate"):
        suggest_rate(curve_of(losses))
    with pytest.raises(CharlstmError, match="the loss fell at no learning rate"):
        suggest_rate([])


class FakeTrainer(Trainer):
    """A stand-in for a trainer, with these losses."""

    def __init__(self, losses: list[float]) -> None:
        self.losses: Iterator[float] = iter(losses)
        self.rates: list[float] = []

    def step(self, learning_rate: float) -> float:
        self.rates.append(learning_rate)
        loss = next(self.losses, None)
        if loss is None:
            raise DivergedError("the loss is not finite")
        return loss


def test_the_rate_of_the_range_test_grows_by_the_same_factor_at_every_step() -> None:
    trainer = FakeTrainer([4.0] * TEST_STEPS)
    curve = list(run_range_test(trainer))
    assert len(curve) == TEST_STEPS
    assert trainer.rates[0] == pytest.approx(LOWEST_LR)
    assert trainer.rates[-1] == pytest.approx(HIGHEST_LR)
    factors = [b / a for a, b in pairwise(trainer.rates)]
    assert max(factors) == pytest.approx(min(factors))
    assert all(step.loss_nats == pytest.approx(4.0) for step in curve), "the mean has no bias towards 0"


def test_a_loss_far_above_its_lowest_ends_the_range_test() -> None:
    curve = list(run_range_test(FakeTrainer([4.0] * 50 + [2.0] * 100 + [40.0] * 150)))
    assert 151 <= len(curve) < 155


def test_divergence_ends_the_range_test_without_an_error() -> None:
    assert len(list(run_range_test(FakeTrainer([4.0] * 10)))) == 10


def test_the_range_test_starts_with_an_untrained_model() -> None:
    trainer = Trainer(Corpus.from_text(ENGLISH[:20_000]), Config())
    first = next(run_range_test(trainer))
    assert first.loss_nats == pytest.approx(log(trainer.vocabulary.size), rel=0.05)
    assert trainer.progress.step == 1


losses = st.floats(0.01, 20)


def draw_rates(rates: list[float], losses: list[float], mark: float, width: int) -> list[str]:
    """Return the chart of a range test."""
    return draw_chart([Line(rates, losses)], width, choose_decade_ticks, log_x=True, arrow=(mark, f"{mark:.2g}"))


@given(st.lists(losses, min_size=2, max_size=300), st.integers(0, 300), st.floats(1e-5, 1))
def test_a_chart_fits_the_width_and_labels_what_it_shows(ys: list[float], width: int, mark: float) -> None:
    lines = draw_rates([10 ** (k / 60 - 5) for k in range(len(ys))], ys, mark, width)
    assert len(lines) == 15
    assert all(len(line) <= max(width, 20) for line in lines)
    top, bottom = (float(lines[row].split("│")[0]) for row in (0, 11))
    assert min(ys) - 0.06 <= bottom <= top <= max(ys) + 0.06
    assert "▲" in lines[-1]


def test_a_chart_falls_from_left_to_right_if_the_loss_does() -> None:
    rows = draw_rates([1e-5, 1e-3, 1e-1], [4.0, 3.0, 2.0], 1e-3, 60)[:12]
    columns = [[row for row in rows if len(row) > k and row[k] > "\u2800"] for k in range(7, 60)]
    assert all(columns), "the curve has no gap"
    tops = [rows.index(column[0]) for column in columns]
    assert tops == sorted(tops)
    assert (tops[0], tops[-1]) == (0, 11)


def test_an_arrow_points_at_the_marked_rate() -> None:
    *_, axis, labels, arrow = draw_rates([1e-5, 1e-1], [4.0, 2.0], 1e-3, 80)
    assert labels.split() == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]
    place = arrow.index("▲ 0.001")
    assert labels.index("0.001") == place
    assert axis[place] == "┬"
