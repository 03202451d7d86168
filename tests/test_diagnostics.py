"""Advice at the end of a run: one sentence where its losses show a problem, and none where they do not."""

from __future__ import annotations

import random
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.config import Config, ModelConfig, TrainingConfig
from charlstm.training.diagnostics import RunSummary, Validation, diagnose, pair_entropy
from tests.support.command_line import charlstm
from tests.support.texts import ENGLISH, SMALL

pytestmark = pytest.mark.slow

EVERY = "training.validate_every=100"


def summary(*history: tuple[int, float, float], **changed: object) -> RunSummary:
    """Return the summary of a run of the default model on a megabyte of English that took all its steps."""
    validations = [Validation(*losses) for losses in history]
    default = RunSummary(Config(), validations, history[-1][0] if history else 0, 800_000, 1_000_000, 2.43)
    return replace(default, **changed)  # type: ignore[arg-type]


HEALTHY = {
    "dropout, a megabyte": [(4000, 1.52, 1.60), (8000, 1.40, 1.52), (12000, 1.33, 1.49), (16000, 1.30, 1.48)],
    "no dropout": [(2000, 1.61, 1.62), (4000, 1.39, 1.53), (6000, 1.27, 1.50), (9800, 1.14, 1.50)],
    "a short last window": [(3000, 1.68, 1.69), (5000, 1.57, 1.605), (7000, 1.53, 1.58), (7030, 1.54, 1.576)],
    "100 kB": [(1000, 2.08, 1.70), (4000, 1.52, 1.56), (7000, 1.37, 1.535), (10000, 1.28, 1.534), (10530, 1.28, 1.533)],
    "20 kB, a little past its best": [(1000, 1.89, 1.811), (2000, 1.35, 1.839), (2100, 1.26, 1.840)],
    "one validation": [(340, 1.66, 1.78)],
    "two validations": [(500, 1.70, 1.51), (870, 1.26, 1.46)],
    "a heavy dropout": [(4000, 1.90, 1.65), (8000, 1.75, 1.52), (12000, 1.68, 1.49), (16000, 1.66, 1.48)],
    "noise in a long run": [(k * 500, 1.5 - k / 1000, 1.6 - k / 1000 + 0.01 * (k % 2)) for k in range(10, 110)],
    "a plateau at first": [(100, 3.4, 3.32), (200, 3.33, 3.33), (900, 2.1, 1.8), (1800, 1.6, 1.65), (2400, 1.5, 1.64)],
    "resumed after its end": [(4000, 1.41, 1.52), (8000, 1.30, 1.47), (12000, 1.39, 1.54), (16000, 1.25, 1.47)],
    "a model trained before": [(500, 1.42, 1.50), (1000, 1.40, 1.49), (1500, 1.38, 1.48)],
}
"""Validations of runs with nothing wrong: the step, the training loss and the validation loss."""


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_gets_no_advice(name: str) -> None:
    assert diagnose(summary(*HEALTHY[name])) == ""


@pytest.mark.parametrize("entropy", [log(4), 1e-4])
def test_a_run_that_has_learned_all_there_is_gets_no_advice(entropy: float) -> None:
    history = [(500, 1.01 * entropy + 0.01, entropy), (1000, entropy, entropy), (2000, entropy, 1.003 * entropy)]
    assert diagnose(summary(*history, pair_entropy_nats=entropy)) == ""


def test_a_run_without_a_validation_gets_no_advice() -> None:
    assert diagnose(summary()) == ""


OVERFITTED = [(300, 2.2, 1.82), (600, 1.69, 1.78), (1200, 1.40, 1.84), (1920, 1.23, 1.89)]
UNDERFITTED = [(300, 2.44, 2.127), (600, 1.99, 1.972), (900, 1.88, 1.893), (1200, 1.82, 1.846), (1406, 1.85, 1.835)]


def test_advice_against_overfitting_names_the_best_step_and_the_options() -> None:
    advice = diagnose(summary(*OVERFITTED))
    assert "step 600" in advice
    assert "--dropout (now 0)" in advice
    assert "lower --epochs (now 20)" in advice
    assert "--hidden" not in advice
    assert "--hidden (now 384)" in diagnose(summary(*OVERFITTED, training_characters=40_000))


def test_a_validation_loss_far_above_the_training_loss_is_overfitting() -> None:
    assert "--dropout" in diagnose(summary((340, 0.7, 2.1)))


CHOSEN = ("model.hidden", "model.dropout", "training.epochs", "training.batch_size", "training.lr")


TOO_SHORT, TOO_SMALL = [(56, 3.27, 3.12)], [(4000, 2.4, 2.35), (9000, 2.39, 2.3)]


@pytest.mark.parametrize("history", [OVERFITTED, UNDERFITTED, TOO_SHORT, TOO_SMALL])
def test_no_advice_contradicts_what_was_chosen_for_a_time_limit(history: list[tuple[int, float, float]]) -> None:
    for total_steps in (history[-1][0], 20_000):
        advice = diagnose(summary(*history, chosen=CHOSEN, parameters=3927, total_steps=total_steps))
        for option in ("--hidden", "--dropout", "--epochs", "--batch-size", "--lr"):
            assert option not in advice
    assert ("--max-time" in advice) == (history in (UNDERFITTED, TOO_SHORT))


def test_whether_a_model_memorizes_is_seen_from_its_losses_without_dropout() -> None:
    history, kept = [(500, 1.9, 1.7), (1000, 1.5, 1.42)], Validation(1000, 1.0, 1.42)
    assert "still falling" in diagnose(summary(*history))
    assert diagnose(summary(*history, best=kept)) == ""
    assert "training loss 0.60" in diagnose(summary(*history, best=Validation(1000, 0.6, 1.42)))


def test_a_run_whose_loss_was_still_falling_is_advised_to_train_longer() -> None:
    assert "raise --epochs (now 20)" in diagnose(summary(*UNDERFITTED))
    assert "raise --max-time" in diagnose(summary(*UNDERFITTED, total_steps=20_000))


def test_a_run_of_few_steps_is_advised_to_train_longer() -> None:
    assert "56 steps are too few" in diagnose(summary((56, 3.27, 3.12)))
    assert "1 step is too few" in diagnose(summary((1, 3.27, 3.12)))


def test_the_settings_are_not_blamed_if_the_first_step_took_most_of_the_time_to_compile() -> None:
    advice = diagnose(summary((3, 3.27, 3.12), total_steps=500, first_step_share=0.8))
    assert "the first took 80% of the time, to compile" in advice
    assert "--overwrite" in advice
    assert "--batch-size" not in advice
    assert "raise --epochs" in diagnose(summary((3, 3.27, 3.12), first_step_share=0.8))


def test_a_small_model_without_overfitting_is_advised_to_be_larger() -> None:
    history = [(4000, 2.46, 2.35), (8000, 2.40, 2.31), (11248, 2.39, 2.30)]
    config = Config(model=ModelConfig(hidden=8))
    assert "--hidden (now 8)" in diagnose(
        summary(*history, config=config, parameters=3927, training_characters=360_000)
    )


BACKWARDS = [(500, 2.4, 2.2), (1000, 2.1, 2.0), (1500, 3.9, 3.4), (2000, 2.6, 2.4)]
STUCK = [
    (300, 2.51, 2.39),
    (600, 2.33, 2.376),
    (900, 2.36, 2.384),
    (2000, 2.2, 2.2),
    (3300, 2.0, 2.0),
    (4218, 1.93, 1.9),
]
UNLEARNED = [(300, 2.92, 2.96), (1500, 2.88, 2.86), (3000, 2.63, 2.62), (4218, 2.58, 2.54)]


@pytest.mark.parametrize("history", [BACKWARDS, STUCK, UNLEARNED])
def test_advice_on_the_learning_rate_names_find_lr(history: list[tuple[int, float, float]]) -> None:
    config = Config(training=TrainingConfig(lr=0.1))
    advice = diagnose(summary(*history, config=config))
    assert "--lr (now 0.1; --find-lr suggests one)" in advice
    assert "raise" not in advice


def test_a_validation_loss_that_rises_alone_is_not_blamed_on_the_learning_rate() -> None:
    assert "--lr" not in diagnose(summary(*OVERFITTED))


def test_a_layer_of_few_units_that_does_no_better_than_pairs_is_advised_to_be_larger() -> None:
    small = Config(model=ModelConfig(hidden=4))
    advice = diagnose(summary((3000, 2.63, 2.62), (4218, 2.58, 2.57), config=small, parameters=1900))
    assert "--lr" not in advice
    assert "--hidden (now 4)" in advice


losses = st.floats(0, 1e3) | st.just(float("nan"))
histories = st.lists(st.tuples(losses, losses), max_size=30)


@given(histories, st.integers(1, 10**6), st.none() | st.floats(0, 12))
def test_advice_is_always_one_short_sentence_with_an_option(
    history: list[tuple[float, float]], each: int, pairs: float | None
) -> None:
    advice = diagnose(summary(*((each * (k + 1), *pair) for k, pair in enumerate(history)), pair_entropy_nats=pairs))
    assert "\n" not in advice
    assert len(advice) < 250
    assert not advice or " --" in advice


@given(st.floats(0.5, 5), st.floats(0.98, 1), st.integers(2, 30), st.floats(0.75, 1.2))
def test_losses_that_fall_ever_more_slowly_get_no_advice_on_dropout_or_learning_rate(
    start: float, share: float, count: int, ratio: float
) -> None:
    history = [(1000 * (k + 1), ratio * start * share**k, start * share**k) for k in range(count)]
    advice = diagnose(summary(*history, pair_entropy_nats=None))
    assert "--lr" not in advice
    assert "--dropout" not in advice


def test_the_pair_entropy_is_the_entropy_of_the_source() -> None:
    generator = random.Random(1)
    letters = np.array([generator.randrange(4) for _ in range(20_000)], np.uint8)
    assert pair_entropy(letters) == pytest.approx(log(4), rel=0.01)
    assert pair_entropy(np.tile(np.array([0, 5000], np.uint16), 500)) == pytest.approx(0, abs=1e-9)


def test_a_text_too_short_to_count_pairs_has_no_pair_entropy() -> None:
    assert pair_entropy(np.frombuffer(ENGLISH[:4000].encode("utf-16-le"), np.uint16)) is None
    assert pair_entropy(np.zeros(1, np.uint8)) is None


def test_the_command_ends_with_advice_that_quiet_suppresses(tmp_path: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:1500], "utf-8")
    settings = (*SMALL, "--hidden", 64, "--lr", 0.02, "--no-samples", "--set", EVERY)
    first = charlstm("train", "x.txt", *settings, "--epochs", 2)
    assert "steps are too few" in first.err.splitlines()[-1]
    longer = charlstm("train", "--resume", "--epochs", 20)
    assert (longer.code, longer.text) == (0, "runs/x\n")
    assert "the model overfits" in longer.err.splitlines()[-1]
    assert "--hidden (now 64)" in longer.err.splitlines()[-1]
    ended = charlstm("train", "--resume")
    assert "the run was already complete" in ended.err.splitlines()[-1]
    assert charlstm("train", "x.txt", *settings, "--epochs", 2, "--overwrite", "-q").err == ""


def test_a_run_with_a_far_too_high_learning_rate_ends_with_advice_to_find_one(tmp_path: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:24_000], "utf-8")
    result = charlstm("train", "x.txt", *SMALL, "--hidden", 32, "--no-samples", "--epochs", 3, "--lr", 10)
    assert result.code == 0, result.err
    assert "--lr (now 10; --find-lr suggests one)" in result.err.splitlines()[-1]
