"""The Python API: load, train, evaluate, and the methods of a loaded model."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import charlstm
from charlstm.storage.tensors import read_tensors
from tests.support.command_line import charlstm as run_command
from tests.support.texts import ENGLISH, ROOT

pytestmark = pytest.mark.slow

CONFIG = charlstm.Config(
    charlstm.ModelConfig(hidden=12, embedding=8),
    training=charlstm.TrainingConfig(epochs=1, batch_size=2, seq_len=16, validate_every=50, device="cpu"),
)


def train(*arguments: object, **options: object) -> list[charlstm.Event]:
    return list(charlstm.train(*arguments, **options))  # type: ignore[arg-type]


def with_epochs(config: charlstm.Config, epochs: int) -> charlstm.Config:
    return replace(config, training=replace(config.training, epochs=epochs))


def same_tensors(one: Path, other: Path) -> bool:
    a, b = read_tensors(one)[0], read_tensors(other)[0]
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_train_yields_started_then_steps_and_validations_then_finished(corpus: Path) -> None:
    events = train(corpus, CONFIG)
    assert isinstance(events[0], charlstm.Started)
    assert isinstance(events[-1], charlstm.Finished)
    assert {type(event) for event in events[1:-1]} == {charlstm.Stepped, charlstm.Validated, charlstm.BestEvaluated}
    assert events[-1].step == events[0].total_steps
    assert Path("runs/little/best.safetensors").exists()


def test_train_rejects_a_folder_with_a_run_before_it_reads_the_corpus(corpus: Path) -> None:
    train(corpus, CONFIG, "run")
    with pytest.raises(charlstm.UsageError, match="run already"):
        charlstm.train("missing.txt", CONFIG, "run")
    assert isinstance(train(corpus, CONFIG, "run", overwrite=True)[-1], charlstm.Finished)


@pytest.mark.parametrize("options", [{"overwrite": True}, {"init_from": "other"}])
def test_train_rejects_resume_with_an_option_of_a_new_run(options: dict[str, object], corpus: Path) -> None:
    with pytest.raises(charlstm.UsageError, match="resume cannot be combined with"):
        charlstm.train(corpus, CONFIG, "run", resume=True, **options)  # type: ignore[arg-type]


def test_train_without_a_corpus_is_an_error_unless_it_resumes() -> None:
    with pytest.raises(charlstm.UsageError, match="no corpus is given"):
        charlstm.train(None)
    with pytest.raises(charlstm.UsageError, match="no run"):
        charlstm.train(None, resume=True)


def test_a_run_that_stop_ended_resumes_to_the_same_weights_as_an_uninterrupted_one(corpus: Path) -> None:
    train(corpus, CONFIG, "whole")
    steps = 0

    def stop() -> bool:
        return steps >= 30

    for event in charlstm.train(corpus, CONFIG, "halves", stop=stop):
        steps = event.step
    assert isinstance(event, charlstm.Finished)
    assert (event.reason, event.step) == ("stopped", 30)
    started = train(None, None, "halves", resume=True)[0]
    assert isinstance(started, charlstm.Started)
    assert started.step == 30
    assert same_tensors(Path("whole/last.safetensors"), Path("halves/last.safetensors"))


def test_breaking_out_of_train_keeps_the_last_validation_and_unlocks_the_folder(corpus: Path) -> None:
    for event in charlstm.train(corpus, CONFIG, "run"):
        if event.step == 60:
            break
    assert charlstm.load("run").file.metrics["step"] == 50
    started = train(corpus, None, "run", resume=True)[0]
    assert isinstance(started, charlstm.Started)
    assert started.step == 50


def test_resume_takes_new_values_of_resumable_settings_and_rejects_others(corpus: Path) -> None:
    train(corpus, CONFIG, "run")
    finished = train(None, with_epochs(charlstm.load("run").config, 2), "run", resume=True)[-1]
    assert finished.step == 2 * finished.steps  # type: ignore[union-attr]
    wider = replace(CONFIG, model=replace(CONFIG.model, hidden=13))
    with pytest.raises(charlstm.UsageError, match=r"cannot resume: model.hidden is 13 here and 12 in the run"):
        charlstm.train(corpus, wider, "run", resume=True)


def test_resume_without_corpus_and_folder_continues_the_newest_run(corpus: Path) -> None:
    train(corpus, CONFIG)
    events = train(None, with_epochs(charlstm.load("runs/little").config, 2), resume=True)
    assert isinstance(events[-1], charlstm.Finished)
    assert events[-1].steps > 0


def test_init_from_starts_with_the_weights_of_a_path_or_a_loaded_model(corpus: Path) -> None:
    train(corpus, CONFIG, "first")
    for number, model in enumerate(["first", Path("first/best.safetensors"), charlstm.load("first")]):
        train(corpus, CONFIG, f"run{number}", init_from=model, stop=lambda: True)
        assert same_tensors(Path("first/best.safetensors"), Path(f"run{number}/last.safetensors"))
    started = train(corpus, None, "same", init_from="first", stop=lambda: True)[0]
    assert charlstm.load("same").config.model == CONFIG.model
    assert isinstance(started, charlstm.Started)


def test_train_from_python_equals_train_from_the_command_line(corpus: Path) -> None:
    Path("config.toml").write_text(CONFIG.to_toml(), "utf-8")
    assert run_command("train", corpus, "--config", "config.toml", "-o", "command").code == 0
    train(corpus, CONFIG, "python")
    assert same_tensors(Path("command/last.safetensors"), Path("python/last.safetensors"))


def test_evaluate_agrees_with_score_and_takes_a_path_a_model_text_or_ids(run: Path) -> None:
    model, text = charlstm.load(run), ENGLISH[:3000]
    metrics = charlstm.evaluate(model, text)
    assert (metrics.characters, metrics.bytes) == (3000, len(text.encode()))
    assert metrics.loss_nats == pytest.approx(-model.score(text).mean(), abs=1e-4)
    assert charlstm.evaluate(str(run), text) == metrics
    assert charlstm.evaluate(run, model.vocabulary.encode(text)) == metrics


def test_evaluate_gives_the_two_sided_metrics_of_a_bidirectional_model(bidirectional_run: Path) -> None:
    metrics = charlstm.evaluate(bidirectional_run, "the fox and the dog sat on the mat\n" * 3)
    assert metrics.backward_loss_nats is not None
    assert metrics.both_sides_accuracy is not None
    assert metrics.both_sides_accuracy > 0.9


def test_evaluate_agrees_with_the_eval_command(run: Path, corpus: Path) -> None:
    printed = run_command("eval", "-m", run, corpus, "--json")
    assert printed.code == 0
    assert f'"loss_nats": {charlstm.evaluate(run, corpus.read_text("utf-8")).loss_nats}' in printed.text


def test_evaluate_with_adaptation_learns_from_the_text_and_leaves_the_model_unchanged(run: Path) -> None:
    model, text = charlstm.load(run), ENGLISH[:2000] * 2
    before = charlstm.evaluate(model, text)
    assert charlstm.evaluate(model, text, adaptation=charlstm.AdaptationConfig()).loss_nats < before.loss_nats
    assert charlstm.evaluate(model, text) == before


def test_evaluate_rejects_empty_text_wrong_ids_and_unknown_characters(run: Path) -> None:
    for text in ("", np.array([], np.int64), np.array([-1]), np.array([10**6]), np.zeros((2, 2), np.int64)):
        with pytest.raises(charlstm.UsageError):
            charlstm.evaluate(run, text)
    with pytest.raises(charlstm.UsageError, match="漢"):
        charlstm.evaluate(run, "the 漢")
    assert charlstm.evaluate(run, "the 漢", unknown="skip").characters == 4
    assert charlstm.evaluate(run, "the 漢", unknown="replace").characters == 5


def test_the_table_of_events_in_the_docs_lists_their_attributes() -> None:
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    events = (charlstm.Started, charlstm.Stepped, charlstm.Validated, charlstm.Saved, charlstm.RolledBack)
    for event in (*events, charlstm.Finished):
        (row,) = re.findall(rf"^\| `{event.__name__}` \|.*", page, flags=re.MULTILINE)
        assert re.findall(r"`(\w+)`", row) == [event.__name__, *(f.name for f in fields(event))]


def test_closing_the_iterator_of_train_unlocks_its_folder(corpus: Path) -> None:
    events = charlstm.train(corpus, CONFIG, "run")
    next(events)
    with pytest.raises(charlstm.CharlstmError, match="being trained"):
        train(corpus, CONFIG, "run", overwrite=True)
    events.close()
    train(corpus, CONFIG, "run", overwrite=True)


def test_public_names_are_importable_without_torch() -> None:
    code = "import sys; from charlstm import *; print(train.__name__, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "train False\n"


def test_every_public_name_is_listed_with_its_module() -> None:
    assert sorted(charlstm.MODULES) == charlstm.__all__
    assert set(charlstm.__all__) <= set(dir(charlstm))


def test_an_unknown_attribute_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'trian'"):
        charlstm.trian  # noqa: B018
