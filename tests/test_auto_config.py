"""`--max-time` without a preset chooses settings that suit the text, the time and the machine."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from charlstm.architecture import count_parameters
from charlstm.cli.actions.train import note_slowness
from charlstm.config import Config, DataConfig, ModelConfig, TrainingConfig
from charlstm.console import Console
from charlstm.data.corpus import Corpus
from charlstm.errors import CharlstmError
from charlstm.storage.run import RunFolder
from charlstm.training import auto_config
from charlstm.training.auto_config import choose_config
from charlstm.training.clock import Clock
from charlstm.training.events import Stepped
from charlstm.training.trainer import Trainer
from tests.support.command_line import charlstm
from tests.support.texts import ENGLISH

pytestmark = pytest.mark.slow

TEXT = Corpus.from_text((ENGLISH * (400_000 // len(ENGLISH) + 1))[:400_000])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that trains with 10 GFLOP/s."""

    def speed(sample: Corpus, config: Config) -> float:
        return 1e10 / (6 * count_parameters(config.model, 65))

    monkeypatch.setattr(auto_config, "measure_speed", speed)


def config_with_time(seconds: float) -> Config:
    return replace(Config(), training=TrainingConfig(max_time=seconds))


@pytest.mark.usefixtures("machine")
def test_more_time_leads_to_a_larger_model_then_to_more_dropout() -> None:
    plans = [choose_config(TEXT, config_with_time(seconds), ()) for seconds in (1, 60, 300, 1200, 4000, 40_000)]
    sizes = [count_parameters(each.config.model, 65) for each in plans]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] < sizes[4]
    assert sizes[-1] <= auto_config.MAX_PARAMETERS_PER_CHARACTER * 400_000
    assert all(each.epochs >= 1.5 for each in plans[1:])
    assert plans[-1].config.model.dropout > plans[1].config.model.dropout


@pytest.mark.usefixtures("machine")
def test_settings_of_the_user_are_kept() -> None:
    config = config_with_time(600)
    config = replace(config, model=replace(config.model, hidden=99, dropout=0.07, cell="gru"))
    found = choose_config(TEXT, config, {"model.hidden", "model.dropout", "model.cell"})
    assert (found.config.model.hidden, found.config.model.dropout, found.config.model.cell) == (99, 0.07, "gru")
    assert "gru" in str(found)
    assert "x 99" in str(found)


@pytest.mark.usefixtures("machine")
def test_a_size_set_by_the_user_gets_the_batch_and_rate_of_the_nearest_size() -> None:
    config = replace(config_with_time(60), model=replace(ModelConfig(), layers=2, hidden=520, embedding=100))
    found = choose_config(TEXT, config, {"model.layers", "model.hidden", "model.embedding"}).config
    assert (found.training.batch_size, found.training.lr) == (32, 4e-3)


@pytest.mark.usefixtures("machine")
def test_a_short_text_gets_a_small_model_and_a_limited_number_of_epochs() -> None:
    found = choose_config(Corpus.from_text(ENGLISH[:3000]), config_with_time(3600), ())
    assert (
        count_parameters(found.config.model, 60) <= auto_config.MAX_PARAMETERS_PER_CHARACTER * 2700
        or found.config.model.hidden == 64
    )
    assert found.config.training.epochs == auto_config.MAX_EPOCHS


@pytest.mark.usefixtures("machine")
def test_a_text_smaller_than_every_batch_gets_a_smaller_batch() -> None:
    found = choose_config(Corpus.from_text(ENGLISH[:200]), config_with_time(10), ()).config.training
    assert (found.batch_size, found.seq_len) == (1, 32)


def test_a_text_smaller_than_a_batch_that_the_user_set_is_rejected() -> None:
    with pytest.raises(CharlstmError, match="need at least"):
        choose_config(
            Corpus.from_text(ENGLISH[:200]), config_with_time(10), ("training.batch_size", "training.seq_len")
        )


def test_a_first_document_longer_than_the_speed_test_reads_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_config, "SAMPLE_CHARACTERS", 2000)
    corpus = Corpus.from_text(f"{ENGLISH[:5000].replace(chr(10), ' ')}\nshort\n", DataConfig(document="line"))
    assert choose_config(corpus, config_with_time(1), ()).characters == 5001


def test_the_command_prints_the_chosen_settings_and_a_preset_disables_the_choice(tmp_path: Path) -> None:
    text = tmp_path / "letters.txt"
    text.write_text(ENGLISH[:6000], "utf-8")
    chosen = charlstm("train", text, "--max-time", "3s", "--dropout", "0.05", "--dry-run")
    assert chosen.code == 0
    assert "settings lstm 1 x " in chosen.err
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
    found = choose_config(TEXT, config_with_time(60), ()).config.regularization
    assert found.activation_penalty > 0 < found.temporal_penalty
    without = choose_config(
        TEXT, config_with_time(60), {"regularization.activation_penalty", "regularization.temporal_penalty"}
    )
    assert without.config.regularization.activation_penalty == without.config.regularization.temporal_penalty == 0


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
        chars_per_second=1000.0,
        seconds_left=1.0,
    )


def test_the_speed_does_not_count_the_first_step(tmp_path: Path) -> None:
    """It compiles and maps memory: with it, the first minute of a run showed too low a speed."""
    clock = Clock(Trainer(TEXT, Config()), RunFolder(tmp_path / "run"))
    for seconds in (10.0, 0.1, 0.3, 0.2):
        clock.record_step(seconds)
    assert clock.seconds_per_step == pytest.approx(0.2)
