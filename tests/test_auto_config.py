"""`--max-time` without a preset chooses settings that suit the text, the time and the machine."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from charlstm.architecture import count_parameters
from charlstm.cli.actions.train_events import note_slowness
from charlstm.config import CELL_NAMES, Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.console import Console
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError
from charlstm.model.ranks import Ranks
from charlstm.storage.run import RunFolder
from charlstm.training import auto_config, speed
from charlstm.training.auto_config import choose_config
from charlstm.training.clock import Clock
from charlstm.training.events import Stepped
from charlstm.training.scaling import critical_batch
from charlstm.training.trainer import Trainer
from tests.support.command_line import charlstm
from tests.support.texts import ENGLISH

pytestmark = pytest.mark.slow

TEXT = Corpus.from_text((ENGLISH * (400_000 // len(ENGLISH) + 1))[:400_000])
LONG_TEXT = replace(TEXT, ids=np.tile(TEXT.ids, 250))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that multiplies with 10 GFLOP/s, updates a GB of weights per second, and measures that in no time."""

    def seconds(sample: Corpus, config: Config, ranks: Ranks) -> float:
        characters = config.training.batch_size * config.training.seq_len
        return 6 * multiplied(config.model) * characters / 1e10 + count_parameters(config.model, 65) * 4e-9

    monkeypatch.setattr(speed, "measure_step_seconds", seconds)
    monkeypatch.setattr(auto_config, "monotonic", lambda: 0.0)


def multiplied(model: ModelConfig) -> int:
    """Return the parameters of a model of 65 symbols without the table of pairs, which is looked up."""
    return count_parameters(replace(model, bigrams=0), 65)


def config_with_time(seconds: float) -> Config:
    return replace(Config(), training=TrainingConfig(max_time=seconds))


@pytest.mark.usefixtures("machine")
def test_more_time_leads_to_a_larger_model_then_to_more_dropout() -> None:
    plans = [choose_config(TEXT, config_with_time(seconds), ()).best for seconds in (1, 60, 300, 1200, 4000, 40_000)]
    sizes = [multiplied(each.config.model) for each in plans]
    assert sizes[0] < sizes[2] < sizes[4]
    assert sizes[-1] <= auto_config.MAX_PARAMETERS_PER_CHARACTER * 400_000
    assert plans[-1].config.model.dropout > plans[1].config.model.dropout


@pytest.mark.usefixtures("machine")
def test_a_text_that_cannot_be_read_once_gets_the_size_that_suits_the_characters_read() -> None:
    """Passes over the text decide only once it is read several times: a long text does not need a small model."""
    plans = [choose_config(LONG_TEXT, config_with_time(seconds), ()).best for seconds in (10, 120, 5400)]
    assert plans[-1].epochs < 1
    sizes = [multiplied(each.config.model) for each in plans]
    assert sizes[2] > 2 * sizes[1] > 4 * sizes[0]


def test_the_range_of_sizes_does_not_end_where_a_day_on_a_fast_machine_pays_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seconds(sample: Corpus, config: Config, ranks: Ranks) -> float:
        characters = config.training.batch_size * config.training.seq_len
        return 1e-4 + 6 * multiplied(config.model) * characters / 1e14

    monkeypatch.setattr(speed, "measure_step_seconds", seconds)
    text = replace(TEXT, ids=np.broadcast_to(TEXT.ids[:1], (10**9,)))
    model = choose_config(text, config_with_time(24 * 3600), ()).best.config.model
    assert multiplied(model) > 10**7


@pytest.mark.usefixtures("machine")
def test_every_cell_and_both_directions_get_a_plan() -> None:
    for cell in CELL_NAMES:
        for bidirectional in (False, True):
            config = replace(config_with_time(60), model=ModelConfig(cell=cell, bidirectional=bidirectional))
            best = choose_config(TEXT, config, ("model.cell", "model.bidirectional")).best
            assert best.measured
            assert (best.config.model.cell, best.config.model.bidirectional) == (cell, bidirectional)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("cell", ["gru", "gru-cho", "rnn", "jordan"])
def test_cells_other_than_the_lstm_get_a_lower_learning_rate(cell: str) -> None:
    size = {"model.cell", "model.hidden", "model.layers", "training.batch_size", "training.seq_len"}
    lstm, other = (
        choose_config(TEXT, replace(config_with_time(60), model=ModelConfig(cell=each, hidden=256)), size).best
        for each in ("lstm", cell)
    )
    assert 0.2 < other.config.training.lr / lstm.config.training.lr < 0.6


@pytest.mark.usefixtures("machine")
def test_the_chosen_candidate_has_about_the_lowest_predicted_loss_and_each_size_is_listed_once() -> None:
    choice = choose_config(TEXT, config_with_time(60), ())
    best, *others = [each.loss_nats for each in choice.candidates]
    assert others == sorted(others)
    assert best < others[0] + 0.02
    assert choice.best.config.model.hidden == choice.candidates[0].config.model.hidden
    sizes = [(each.config.model.layers, each.config.model.hidden) for each in choice.candidates]
    assert len(set(sizes)) == len(sizes) > 10


@pytest.mark.usefixtures("machine")
def test_time_that_has_passed_is_not_planned_with() -> None:
    whole, rest = (choose_config(TEXT, config_with_time(100), (), used).best for used in (0, 90))
    work = [each.characters * multiplied(each.config.model) for each in (whole, rest)]
    assert work[1] < work[0] / 5


@pytest.mark.usefixtures("machine")
def test_no_batch_is_chosen_that_is_far_larger_than_those_the_law_was_measured_with() -> None:
    smallest = min(streams * window for streams, window in auto_config.BATCHES)
    for seconds in (60, 600, 4000, 40_000):
        best = choose_config(TEXT, config_with_time(seconds), ()).best
        batch = best.config.training.batch_size * best.config.training.seq_len
        assert batch <= max(5 * critical_batch(best.characters), smallest)


@pytest.mark.usefixtures("machine")
def test_a_run_is_planned_when_its_time_has_passed_before_it_starts() -> None:
    best = choose_config(TEXT, config_with_time(2), (), 3).best
    assert best.characters == best.config.training.batch_size * best.config.training.seq_len


@pytest.mark.usefixtures("machine")
def test_validations_take_a_small_share_of_the_time() -> None:
    for seconds in (1, 10, 60, 3600):
        best = choose_config(LONG_TEXT, config_with_time(seconds), ()).best
        training = best.config.training
        steps = best.characters / (training.batch_size * training.seq_len)
        validations = steps / training.validate_every
        assert validations <= auto_config.MAX_VALIDATIONS + 1.5
        read_before_the_last = (validations - 1) * (training.validation_chars or 10_000_000)
        readable = 0.03 * best.chars_per_second * seconds  # in 2 % of the time: validation is faster than training
        assert read_before_the_last <= 1.1 * max(readable, auto_config.MIN_VALIDATION_CHARS)


@pytest.mark.usefixtures("machine")
def test_settings_of_the_user_are_kept() -> None:
    config = config_with_time(600)
    config = replace(config, model=replace(config.model, hidden=99, dropout=0.07, cell="gru"))
    found = choose_config(TEXT, config, {"model.hidden", "model.dropout", "model.cell"})
    model = found.best.config.model
    assert (model.hidden, model.dropout, model.cell) == (99, 0.07, "gru")
    assert "gru" in str(found)
    assert "x 99" in str(found)


@pytest.mark.usefixtures("machine")
def test_a_short_text_gets_a_small_model_and_a_limited_number_of_epochs() -> None:
    found = choose_config(Corpus.from_text(ENGLISH[:3000]), config_with_time(3600), ()).best.config
    assert multiplied(found.model) <= auto_config.MAX_PARAMETERS_PER_CHARACTER * 2700
    assert found.training.epochs == auto_config.MAX_EPOCHS


@pytest.mark.usefixtures("machine")
def test_a_text_smaller_than_every_batch_gets_a_smaller_batch() -> None:
    found = choose_config(Corpus.from_text(ENGLISH[:60]), config_with_time(10), ()).best.config.training
    assert found.batch_size * found.seq_len < 60


def test_a_text_smaller_than_a_batch_that_the_user_set_is_rejected() -> None:
    with pytest.raises(CharlstmError, match="need at least"):
        choose_config(
            Corpus.from_text(ENGLISH[:200]), config_with_time(10), ("training.batch_size", "training.seq_len")
        )


def test_a_first_document_longer_than_the_speed_test_reads_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SAMPLE_CHARACTERS", 2000)
    corpus = Corpus.from_text(f"{ENGLISH[:5000].replace(chr(10), ' ')}\nshort\n", DataConfig(document="line"))
    assert choose_config(corpus, config_with_time(1), ()).text_length == 5001


def test_the_command_prints_the_chosen_settings_and_a_preset_disables_the_choice(tmp_path: Path) -> None:
    text = tmp_path / "letters.txt"
    text.write_text(ENGLISH[:6000], "utf-8")
    chosen = charlstm("train", text, "--max-time", "3s", "--dropout", "0.05", "--dry-run")
    assert chosen.code == 0
    assert "settings lstm " in chosen.err
    assert "dropout 0.05" in chosen.err
    assert "dropout = 0.05" in chosen.text
    preset = charlstm("train", text, "--preset", "tiny", "--max-time", "3s", "--dry-run")
    assert "there is time for" not in preset.err


def test_max_time_alone_trains_a_model_that_can_be_evaluated(tmp_path: Path) -> None:
    text = tmp_path / "letters.txt"
    text.write_text(ENGLISH[:6000], "utf-8")
    trained = charlstm("train", text, "--max-time", "2s")
    assert trained.code == 0
    assert "there is time for" in trained.err
    assert charlstm("eval").code == 0


@pytest.mark.usefixtures("machine")
def test_the_output_penalties_are_chosen_unless_the_user_set_them() -> None:
    found = choose_config(TEXT, config_with_time(60), ()).best.config.regularization
    assert found.activation_penalty > 0 < found.temporal_penalty
    given = {"regularization.activation_penalty", "regularization.temporal_penalty"}
    without = choose_config(TEXT, config_with_time(60), given).best.config.regularization
    assert without.activation_penalty == without.temporal_penalty == 0


@pytest.mark.parametrize(("planned", "notes"), [(1000.0, 0), (2000.0, 1)])
def test_a_run_much_slower_than_planned_says_so_once(planned: float, notes: int) -> None:
    err = io.StringIO()
    events = [stepped(done / 100) for done in range(100)]
    assert list(note_slowness(Console(io.BytesIO(), io.BytesIO(), err, {}), events, planned)) == events
    assert err.getvalue().count("the settings were chosen for") == notes


def stepped(done: float) -> Stepped:
    """Return the event of a step at 1,000 characters/s."""
    return Stepped(
        step=round(done * 100) + 1,
        epoch=0,
        fraction_done=done,
        loss_nats=2.0,
        learning_rate=1e-3,
        gradient_norm=1.0,
        chars_per_second=1000.0,
        seconds_left=1.0,
    )


def test_the_speed_does_not_count_the_first_step(tmp_path: Path) -> None:
    """It compiles and maps memory: with it, the first minute of a run showed too low a speed."""
    clock = Clock(Trainer(TEXT, Config()), RunFolder(tmp_path / "run"), monotonic())
    for seconds in (10.0, 0.1, 0.3, 0.2):
        clock.record_step(seconds)
    assert clock.seconds_per_step == pytest.approx(0.2)


def test_no_warning_contradicts_the_size_that_was_chosen(tmp_path: Path) -> None:
    text = tmp_path / "tiny.txt"
    text.write_text(ENGLISH[:300], "utf-8")
    assert "memorize" not in charlstm("train", text, "--max-time", "1s", "--no-samples").err
    given = charlstm("train", text, "--max-time", "1s", "--no-samples", "--hidden", 64, "-o", tmp_path / "given")
    assert "will memorize it; lower --hidden" in given.err
