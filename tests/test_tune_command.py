"""`charlstm tune`: the search, its output and its files."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from statistics import mean

import pytest

from charlstm.config import Config, ModelConfig, RegularizationConfig, TrainingConfig
from charlstm.errors import DivergedError
from charlstm.settings import Setting, resolve, updated
from charlstm.training import auto_config
from charlstm.training.trainer import Trainer
from charlstm.tuning.journal import open_study
from charlstm.tuning.space import get_setting, space_around, unset_keys
from tests.support.command_line import Result, assert_fails, charlstm, run_process
from tests.support.texts import ENGLISH, ROOT, SMALL

pytestmark = pytest.mark.slow

PLAIN = [f"--set=regularization.{name}=0" for name in ("embedding_dropout", "activation_penalty", "temporal_penalty")]
FIXED = (*SMALL, *PLAIN, "--cell", "lstm", "--layers", 1, "--dropout", 0)
"""Every searched setting except the learning rate."""


@pytest.fixture(autouse=True)
def planned_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the plan have a learning rate of 0.008 on every machine."""
    monkeypatch.setattr(auto_config, "choose_lr", lambda *_: 8e-3)


def tune(*arguments: object) -> Result:
    return charlstm("tune", *FIXED, "--time", "0.3s", *arguments)


def test_tune_writes_a_config_file_that_train_accepts(corpus: Path) -> None:
    result = tune(corpus, "--trials", 2)
    assert result.code == 0, result.err
    assert result.text == "runs/little-tune/best.toml\n"
    found = tomllib.loads(Path("runs/little-tune/best.toml").read_text("utf-8"))
    assert "nats/char after 0.3s" in found["about"]
    assert found["training"]["max_time"] == "0.3s"
    trained = charlstm("train", corpus, "--config", result.text.strip(), "--no-samples")
    assert trained.code == 0, trained.err
    kept = tomllib.loads(Path("runs/little/config.toml").read_text("utf-8"))
    assert kept["training"]["lr"] == found["training"]["lr"]


def test_tune_json_is_one_object_per_trial_and_the_path_of_the_config(corpus: Path) -> None:
    result = tune(corpus, "--trials", 2, "--json")
    assert result.code == 0, result.err
    *trials, finished = [json.loads(line) for line in result.text.splitlines()]
    assert [(each["event"], each["number"], each["repeats"]) for each in trials[:2]] == [
        ("trial", 0, None),
        ("trial", 1, None),
    ]
    assert trials[0]["settings"]["training.lr"] == 8e-3
    assert {each["repeats"] for each in trials[2:]} == {0, 1}
    losses = {
        number: mean(each["loss_nats"] for each in trials if number in (each["number"], each["repeats"]))
        for number in (0, 1)
    }
    best = min(losses, key=lambda number: losses[number])
    assert finished == {
        "event": "finished",
        "config": "runs/little-tune/best.toml",
        "trials": 2,
        "best_trial": best,
        "best_loss_nats": pytest.approx(losses[best]),
    }
    documented = (ROOT / "docs" / "training.md").read_text("utf-8").partition("## Tuning")[2].partition("\n## ")[0]
    for key in {*trials[0], *finished}:
        assert f"`{key}`" in documented


def test_tune_keeps_the_best_model_and_removes_the_other_runs(corpus: Path) -> None:
    assert tune(corpus, "--trials", 2).code == 0
    names = {path.name for path in Path("runs/little-tune").iterdir()}
    assert names == {"best.toml", "best.safetensors", "config.toml", "journal.jsonl"}
    assert charlstm("sample", "-l", 5).code == 0
    assert charlstm("eval", "-m", "runs/little-tune").code == 0


def test_only_the_config_of_a_search_contains_the_path_of_the_corpus(corpus: Path) -> None:
    assert tune(corpus, "--trials", 1).code == 0
    files = Path("runs/little-tune").iterdir()
    assert {path.name for path in files if str(corpus.parent).encode() in path.read_bytes()} == {"config.toml"}
    evaluated = charlstm("eval", "-m", "runs/little-tune", "--json")
    assert json.loads(evaluated.text)["text"] == f"val part of {corpus}"


def test_a_search_on_a_large_text_from_a_pipe_has_several_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlstm.storage.spool.MAX_IN_MEMORY", 1000)
    result = charlstm("tune", "-", *FIXED, "--time", "0.3s", "--trials", 2, stdin=ENGLISH[:4000].encode())
    assert result.code == 0, result.err
    assert not list(Path("runs/stdin-tune").glob("trial-*"))


def test_tune_starts_with_the_given_settings_and_the_same_command_continues(corpus: Path) -> None:
    first = tune(corpus, "--trials", 1)
    assert "trial 0" in first.err
    assert "lr 0.008" in first.err
    assert "continuing" not in first.err
    second = tune(corpus, "--trials", 1)
    assert second.code == 0, second.err
    assert "continuing after 1 trial" in second.err
    assert "trial 1" in second.err
    assert "trial 0  " not in second.err


def test_tune_says_that_a_search_of_an_earlier_version_cannot_be_continued(corpus: Path) -> None:
    """It searched other ranges, which did not depend on the text and the time."""
    assert tune(corpus, "--trials", 1).code == 0
    journal = Path("runs/little-tune/journal.jsonl")
    lines = journal.read_text("utf-8").splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if '"sizes"' not in line), "utf-8")
    assert_fails(tune(corpus), 2, "runs/little-tune holds a search of an earlier version", "-o")


def test_the_first_trial_is_the_plan_of_max_time_and_the_others_are_around_it(corpus: Path) -> None:
    result = charlstm("tune", corpus, "--time", "0.3s", "--trials", 2, "--json")
    assert result.code == 0, result.err
    trials = [json.loads(line)["settings"] for line in result.text.splitlines()[:2]]
    assert "the first trial: " in result.err
    plan = trials[0]
    for trial in trials[1:]:
        assert plan["model.hidden"] / 2 <= trial["model.hidden"] <= 2 * plan["model.hidden"]
        assert plan["training.lr"] / 3.01 <= trial["training.lr"] <= 3.01 * plan["training.lr"]
        assert abs(plan["model.layers"] - trial["model.layers"]) <= 1


def test_tune_keeps_the_settings_of_flags_and_config_files(corpus: Path) -> None:
    Path("mine.toml").write_text("[training]\nlr = 5e-3\n", "utf-8")
    charlstm(
        "tune",
        corpus,
        *SMALL,
        "--layers",
        2,
        "--head",
        "tied",
        "--config",
        "mine.toml",
        "--time",
        "0.3s",
        "--trials",
        3,
    )
    found = tomllib.loads(Path("runs/little-tune/best.toml").read_text("utf-8"))
    assert found["model"] | {"hidden": 24, "embedding": 12, "layers": 2, "head": "tied"} == found["model"]
    assert found["training"] | {"seq_len": 16, "batch_size": 4, "lr": 5e-3} == found["training"]
    everything = tune(corpus, "--config", "mine.toml", "-o", "other")
    assert_fails(everything, 2, "nothing to search", "training.lr")


def test_tune_rejects_another_corpus_and_other_settings_by_name(corpus: Path) -> None:
    assert tune(corpus, "--trials", 1).code == 0
    assert_fails(tune(corpus, "--hidden", 30), 2, "--hidden is 30 here and 24", "runs/little-tune", "-o")
    assert_fails(tune(corpus, "--lr", "1e-3"), 2, "nothing to search")
    assert_fails(charlstm("tune", corpus, *SMALL, *PLAIN, "--time", "0.3s"), 2, "model.layers is searched here and 1")
    corpus.write_text(ENGLISH[4000:8000], "utf-8")
    assert_fails(tune(corpus), 2, "runs/little-tune holds a search on another corpus", "-o")


def test_tune_rejects_the_folder_of_a_run_and_reports_a_damaged_journal(corpus: Path, run: Path) -> None:
    assert_fails(tune(corpus, "-o", run), 2, "already holds a run")
    Path("broken").mkdir()
    Path("broken/journal.jsonl").write_text("not a journal\n", "utf-8")
    assert_fails(tune(corpus, "-o", "broken"), 1, "broken/journal.jsonl")
    assert_fails(tune(corpus, "-o", "/proc/nothing/here"), 1, "cannot write /proc/nothing/here")
    assert_fails(charlstm("tune", corpus, "--time", 0), 2, "--time")
    assert_fails(charlstm("tune", corpus, "--time", "soon"), 2, "--time must be a time", "soon")


def test_a_corpus_too_small_for_the_given_settings_is_an_error(corpus: Path) -> None:
    too_small = charlstm("tune", corpus, *SMALL, "--seq-len", 5000, "--time", "1s", "--trials", 2)
    assert_fails(too_small, 1, "need at least 20,001")


def test_a_trial_that_diverges_fails_and_the_search_continues(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def diverging(trainer: Trainer, learning_rate: float) -> float:
        if trainer.config.training.lr != 8e-3:
            raise DivergedError("training diverged at step 1: the loss is not finite")
        return step(trainer, learning_rate)

    monkeypatch.setattr(Trainer, "step", diverging)
    result = tune(corpus, "--trials", 2)
    assert result.code == 0, result.err
    assert "trial 1  failed: training diverged at step 1" in result.err
    assert tomllib.loads(Path("runs/little-tune/best.toml").read_text("utf-8"))["training"]["lr"] == 8e-3


@pytest.mark.parametrize("library", ["optuna", "scipy"])
def test_tune_without_a_library_prints_the_command_that_installs_it(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert_fails(tune(corpus), 1, f"needs Optuna and SciPy, and {library} is not installed", "'charlstm[tune]'")


def test_ctrl_c_keeps_the_finished_trials(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def interrupted(trainer: Trainer, learning_rate: float) -> float:
        if trainer.config.training.lr != 8e-3 and not trainer.progress.step:
            signal.raise_signal(signal.SIGINT)
        return step(trainer, learning_rate)

    monkeypatch.setattr(Trainer, "step", interrupted)
    result = tune(corpus)
    assert (result.code, result.text) == (130, ""), result.err
    assert "press Ctrl-C again to exit at once" in result.err
    assert "stopped after 1 completed trial;" in result.err
    assert "the same command continues the search" in result.err
    names = {path.name for path in Path("runs/little-tune").iterdir()}
    assert names == {"best.toml", "best.safetensors", "config.toml", "journal.jsonl"}
    assert "lr = 0.008" in Path("runs/little-tune/best.toml").read_text("utf-8")


def test_a_search_continues_after_a_process_that_was_killed_while_it_wrote_the_journal(corpus: Path) -> None:
    folder = Path("runs/little-tune")
    folder.mkdir(parents=True)
    (folder / "journal.jsonl.lock").symlink_to(folder / "journal.jsonl")  # what earlier versions left behind
    (folder / "journal.lock").write_text("pid 1                   \n", "utf-8")
    result = run_process("tune", corpus, *FIXED, "--time", "0.1s", "--trials", 1)
    assert result.code == 0, result.err


def test_a_killed_search_can_be_continued(corpus: Path) -> None:
    command = [sys.executable, "-m", "charlstm", "tune", str(corpus), *map(str, FIXED), "--time", "2s"]
    folder = Path("runs/little-tune")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as killed:
        wait_for(folder / "trial-0" / "config.toml")
        killed.kill()
    assert_fails(tune(corpus), 2, "--time is 0.3s here and 2.0s in the search in runs/little-tune")
    again = charlstm("tune", corpus, *FIXED, "--time", "2s", "--trials", 1)
    assert again.code == 0, again.err
    assert "trial 1" in again.err
    (plan,) = re.findall("the first trial: (.*)", again.err)
    assert f"({plan})" in again.err, "the plan was not tried to the end"
    assert not list(folder.glob("trial-*"))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


CONFIGS = (
    Config(),
    Config(ModelConfig(hidden=20, dropout=0.5, cell="rnn"), training=TrainingConfig(batch_size=1, seq_len=3)),
    Config(
        ModelConfig(layers=4, hidden=4096, dropout=0.9), regularization=RegularizationConfig(activation_penalty=2.0)
    ),
)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_plan_and_both_ends_of_every_range_are_valid(config: Config) -> None:
    for key, values in space_around(config, [(1, 32)]).items():
        planned = get_setting(config, key)
        assert values.decode(values.encode(planned)) == (
            pytest.approx(planned) if isinstance(planned, float) else planned
        )
        for end in str(values).split(" to "):
            given = {key: Setting(end, "a test")}
            assert get_setting(updated(Config(), {key: end}, "the search"), key) == get_setting(resolve(given), key)
            assert key not in unset_keys(given)


def test_a_run_is_preferred_to_a_newer_search(run: Path) -> None:
    shutil.copytree(run, "runs/letters")
    shutil.copytree(run, "runs/letters-tune")
    Path("runs/letters-tune/journal.jsonl").touch()
    (Path("runs/letters-tune") / "best.safetensors").touch()
    assert "runs/letters/best.safetensors" in charlstm("sample", "-l", 5).err


@pytest.mark.parametrize(("loss", "pruned"), [(2.0, False), (2.09, False), (2.11, True)])
def test_a_trial_far_behind_at_the_same_share_of_its_time_is_stopped(tmp_path: Path, loss: float, pruned: bool) -> None:
    study = open_study(tmp_path)
    for rungs in ({1: 3.0, 2: 2.0}, {1: 3.1, 2: loss}):
        trial = study.ask()
        for rung, value in rungs.items():
            trial.report(value, rung)
    assert trial.should_prune() is pruned
