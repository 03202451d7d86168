"""`charlstm train`: output, exit status and messages."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from charlstm import presets
from charlstm.cli.display import count_symbols_with
from charlstm.config import DataConfig
from charlstm.data.corpus import Corpus
from charlstm.model.kernels.native import code_store
from charlstm.storage.model import ModelFile
from tests.support.command_line import assert_fails, charlstm, run_process
from tests.support.texts import ENGLISH, SMALL

pytestmark = pytest.mark.slow

QUICK = (*SMALL, "--epochs", "1")


def test_train_prints_only_the_run_folder_on_stdout(corpus: Path) -> None:
    result = charlstm("train", corpus, *QUICK)
    assert result.code == 0, result.err
    assert result.text == "runs/little\n"
    names = {path.name for path in Path("runs/little").iterdir()}
    models = {f"{name}.safetensors" for name in ("best", "last", "state", "good")}
    assert names == {*models, "config.toml", "metrics.jsonl"}


def test_train_prints_corpus_model_and_losses_on_stderr(corpus: Path) -> None:
    err = charlstm("train", corpus, *QUICK).err
    distinct = len(set(ENGLISH[:4000]))
    assert f"4,000 characters, {distinct} distinct; 3,600 train, 400 val" in err
    assert "lstm 1 x 24" in err
    assert "float32" in err
    assert "nats/char" in err
    assert "best so far" in err


def test_a_model_much_larger_than_its_text_gets_a_warning(corpus: Path) -> None:
    assert "parameters for each character" not in charlstm("train", corpus, *QUICK, "--dry-run").err
    assert "parameters for each character" in charlstm("train", corpus, "--hidden", 500, "--dry-run").err


def test_a_vocabulary_that_takes_most_of_the_model_gets_a_warning_with_remedies(corpus: Path) -> None:
    chinese = charlstm("train", presets.bundled_corpus().with_name("chinese.txt"), "--hidden", 64, "--dry-run").err
    assert "embedding and output layer of 1,367 characters take 84% of the parameters" in chinese
    assert "--min-count 3 leaves 848; --head tied makes both share" in chinese
    tied = charlstm(
        "train", presets.bundled_corpus().with_name("chinese.txt"), "--hidden", 64, "--head", "tied", "--dry-run"
    ).err
    assert "--min-count 3 leaves 848" in tied
    assert "--head" not in tied
    assert "embedding and output layer" not in charlstm("train", corpus, *QUICK, "--dry-run").err


@pytest.mark.parametrize("least", [2, 5])
def test_the_vocabulary_warning_states_the_size_that_min_count_gives(
    least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = presets.bundled_corpus().with_name("chinese.txt").read_text("utf-8")
    monkeypatch.setattr("charlstm.data.split.CHUNK_IDS", 1000)
    for config in (DataConfig(), DataConfig(min_count=2), DataConfig(document="file")):
        left = count_symbols_with(Corpus.from_text(text, config), least)
        assert left == Corpus.from_text(text, replace(config, min_count=least)).vocabulary.size


def test_a_large_vocabulary_next_to_larger_layers_gets_no_warning() -> None:
    chinese = presets.bundled_corpus().with_name("chinese.txt")
    err = charlstm("train", chinese, "--hidden", 512, "--layers", 2, "--dry-run").err
    assert "embedding and output layer" not in err


def test_the_head_option_overrides_set(corpus: Path) -> None:
    for others in ((), ("--set", "model.head=all")):
        result = charlstm("train", corpus, *QUICK, "--head", "tied", *others, "--dry-run")
        assert 'head = "tied"' in result.text, result.err
    assert 'head = "top"' in charlstm("train", corpus, *QUICK, "--dry-run").text


def test_resume_rejects_another_head(corpus: Path) -> None:
    assert charlstm("train", corpus, *QUICK).code == 0
    assert_fails(charlstm("train", corpus, "--resume", "--head", "tied"), 2, "--head is tied here and top in the run")


def test_no_samples_turns_off_samples_during_training(corpus: Path) -> None:
    assert "\n    " in charlstm("train", corpus, *QUICK).err
    assert "\n    " not in charlstm("train", corpus, *QUICK, "--overwrite", "--no-samples").err


def test_quiet_training_prints_nothing_on_stderr(corpus: Path) -> None:
    assert charlstm("train", corpus, *QUICK, "-q").err == ""


def test_without_a_terminal_progress_is_plain_lines(corpus: Path) -> None:
    err = charlstm("train", corpus, *QUICK).err
    assert "\r" not in err
    assert "\x1b" not in err


def test_color_always_forces_color(corpus: Path) -> None:
    assert "\x1b[2m" in charlstm("train", corpus, *QUICK, "--color", "always").err


def test_a_run_is_overwritten_only_with_overwrite(corpus: Path) -> None:
    charlstm("train", corpus, *QUICK)
    before = Path("runs/little/best.safetensors").read_bytes()
    assert_fails(charlstm("train", corpus, *QUICK), 2, "runs/little already holds a run", "--resume", "--overwrite")
    assert Path("runs/little/best.safetensors").read_bytes() == before
    assert charlstm("train", corpus, *QUICK, "--overwrite", "--seed", 7).code == 0
    assert Path("runs/little/best.safetensors").read_bytes() != before


def test_train_leaves_files_that_are_not_from_a_run_alone(tmp_path: Path) -> None:
    Path("corpus.txt").write_text(ENGLISH[:4000], "utf-8")
    Path("config.toml").write_text("[model]\nhidden = 24\n", "utf-8")
    assert_fails(charlstm("train", "corpus.txt", *QUICK, "-o", "."), 2, "already holds config.toml", "-o")
    assert Path("config.toml").read_text("utf-8") == "[model]\nhidden = 24\n"
    Path("config.toml").unlink()
    assert charlstm("train", "corpus.txt", *QUICK, "-o", ".").code == 0
    assert Path("corpus.txt").read_text("utf-8") == ENGLISH[:4000]


def test_overwrite_keeps_the_old_run_if_the_new_one_cannot_start(corpus: Path, run: Path) -> None:
    charlstm("train", corpus, *QUICK)
    before = Path("runs/little/best.safetensors").read_bytes()
    rejected = charlstm("train", corpus, *QUICK, "--overwrite", "--init-from", run)
    assert_fails(rejected, 2, "hidden is 48 in that model and 24 here")
    assert Path("runs/little/best.safetensors").read_bytes() == before


def test_the_config_of_a_run_trains_the_same_model_again(corpus: Path) -> None:
    charlstm("train", corpus, *QUICK)
    again = charlstm("train", "--config", "runs/little/config.toml", "-o", "again")
    assert again.code == 0, again.err
    assert Path("again/best.safetensors").read_bytes() == Path("runs/little/best.safetensors").read_bytes()
    piped = charlstm("train", "--config", "-", "--dry-run", stdin=Path("runs/little/config.toml").read_bytes())
    assert piped.out == Path("runs/little/config.toml").read_bytes()


def test_a_named_pipe_is_read_like_stdin(corpus: Path) -> None:
    train = f"{sys.executable} -m charlstm train <(cat {corpus}) {' '.join(map(str, QUICK))}"
    result = subprocess.run(["bash", "-c", train], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "runs/stdin\n"), result.stderr
    assert charlstm("eval", "-m", "runs/stdin").code == 0


def test_resuming_a_complete_run_says_how_to_continue_it(corpus: Path) -> None:
    charlstm("train", corpus, *QUICK)
    again = charlstm("train", "--resume")
    assert again.code == 0
    assert "already complete" in again.err
    assert "--epochs" in again.err


def test_a_run_under_nohup_ignores_sighup(corpus: Path) -> None:
    train = f"{sys.executable} -m charlstm train {corpus} {' '.join(map(str, QUICK))} -q --epochs 3"
    command = f"trap '' HUP; {train} & sleep 0.1; while kill -HUP $! 2> /dev/null; do sleep 0.2; done; wait $!"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "runs/little\n"), result.stderr


def test_dry_run_rejects_a_look_ahead_that_training_would_reject(corpus: Path) -> None:
    asked = ("train", corpus, *QUICK, "--bidirectional", "--set", "training.look_ahead=5000")
    for dry_run in ((), ("--dry-run",)):
        assert_fails(charlstm(*asked, *dry_run), 1, "look-ahead of 5000", "training.look_ahead")


def test_dry_run_prints_the_settings_and_writes_no_files(corpus: Path) -> None:
    result = charlstm("train", corpus, *QUICK, "--dry-run")
    assert result.code == 0
    assert "hidden = 24" in result.text
    assert not Path("runs").exists()
    Path("again.toml").write_bytes(result.out)
    assert charlstm("train", corpus, "--config", "again.toml", "--dry-run").out == result.out


def test_train_without_a_corpus_uses_the_bundled_one() -> None:
    result = charlstm("train", "--dry-run")
    assert result.code == 0
    assert "ships with charlstm" in result.err
    assert "english.txt" in result.text


def test_a_run_on_a_piped_corpus_can_be_evaluated_and_resumed(tmp_path: Path) -> None:
    result = charlstm("train", "-", *QUICK, "-o", "piped", stdin=ENGLISH[:4000].encode())
    assert result.code == 0, result.err
    assert charlstm("eval", "-m", "piped", "--json").code == 0
    assert charlstm("train", "--resume", "-o", "piped", "--epochs", 2).code == 0
    assert_fails(charlstm("train", "-", *QUICK), 2, "nothing was piped in")


def test_a_byte_model_trains_on_any_file(tmp_path: Path) -> None:
    Path("any.bin").write_bytes(bytes(range(256)) * 20)
    result = charlstm("train", "any.bin", *QUICK, "--level", "byte", "-o", "b")
    assert result.code == 0, result.err
    assert len(charlstm("sample", "-m", "b", "-l", 30, "--raw", "--seed", 1).out) == 30
    assert "bits per byte" in charlstm("eval", "-m", "b").text


def test_min_count_replaces_rare_characters_with_the_unknown_symbol(tmp_path: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:4000] + "漢", "utf-8")
    assert charlstm("train", "x.txt", *QUICK, "--min-count", 2).code == 0
    vocabulary = ModelFile.load(Path("runs/x/best.safetensors")).vocabulary
    assert "漢" not in vocabulary.to_dict()["characters"]
    assert vocabulary.unknown is not None
    evaluated = charlstm("eval", "--json", "--part", "val")
    assert json.loads(evaluated.out)["characters_folded"] >= 1


def test_resume_accepts_more_epochs_and_rejects_another_model(corpus: Path) -> None:
    charlstm("train", corpus, *QUICK)
    longer = charlstm("train", corpus, "--resume", "--epochs", 3)
    assert longer.code == 0, longer.err
    assert "resumed at step" in longer.err
    assert_fails(charlstm("train", "--resume", "--hidden", 30), 2, "--hidden is 30 here and 24 in the run")
    assert_fails(charlstm("train", "--resume", "-o", "nowhere"), 2, "nowhere")
    assert_fails(charlstm("train", corpus, "--resume", "--overwrite"), 2, "--resume", "--overwrite")


def test_resume_without_a_run_names_the_option_for_one() -> None:
    assert_fails(charlstm("train", "--resume"), 2, "there is no run under ./runs; name the folder of a run with -o")


def test_init_from_copies_the_model_shape_and_lists_new_characters(run: Path, tmp_path: Path) -> None:
    Path("x.txt").write_text(ENGLISH[50_000:54_000].replace("a", "å"), "utf-8")
    result = charlstm("train", "x.txt", "--init-from", run, "--batch-size", 4, "--seq-len", 16, "--epochs", 1)
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "start with new weights" in line]
    assert "å" in line.split(": ")[1]
    assert ModelFile.load(Path("runs/x/best.safetensors")).config.model.hidden == 48


def test_the_first_training_on_a_machine_says_that_it_compiles(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLSTM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    compiling = "compiling for this machine, once"
    assert charlstm("train", corpus, *QUICK).err.count(compiling) == 1
    compiled = code_store().path("lstm_forward")
    compiled.parent.mkdir(parents=True)
    compiled.touch()
    assert compiling not in charlstm("train", corpus, *QUICK, "--overwrite").err
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "own"))
    assert compiling in charlstm("train", corpus, *QUICK, "--overwrite").err


def test_progress_estimates_nothing_from_the_first_step(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlstm.console.LINE_EVERY", 0.0)
    monkeypatch.setattr("charlstm.console.LINE_SHARE", 0.0)
    lines = charlstm("train", corpus, *QUICK, "--no-samples").err.splitlines()
    first, second = (next(line for line in lines if f"step {step}  epoch" in line) for step in (1, 2))
    assert "left" not in first
    assert "chars/s" not in first
    assert "s left" in second
    assert "chars/s" in second


def test_bad_input_gets_one_sentence(tmp_path: Path) -> None:
    assert_fails(charlstm("train", "missing.txt"), 2, "missing.txt")
    Path("folder").mkdir()
    assert_fails(charlstm("train", "folder"), 2, "contains no *.txt file")
    Path("empty.txt").touch()
    assert_fails(charlstm("train", "empty.txt"), 1, "empty")
    Path("short.txt").write_text("too short by far")
    assert_fails(charlstm("train", "short.txt", *QUICK), 1, "14 characters", "--batch-size")
    assert_fails(charlstm("train", "short.txt", *QUICK, "--dry-run"), 1, "14 characters", "--batch-size")
    Path("tiny.txt").write_text("ab")
    assert_fails(charlstm("train", "tiny.txt"), 1, "2 characters", "at least 3", "--split 1,0")
    Path("bad.txt").write_bytes(b"abc\xff")
    assert_fails(charlstm("train", "bad.txt"), 1, "bad.txt", "0xff", "offset 3")
    assert_fails(charlstm("train", "--frobnicate"), 2, "--frobnicate")
    assert_fails(charlstm("train", "short.txt", "--color", "blue"), 2, "blue")
    assert not Path("runs").exists()


def test_an_unwritable_run_folder_gets_one_sentence(corpus: Path) -> None:
    assert_fails(charlstm("train", corpus, *QUICK, "-o", "/proc/nothing/here"), 1, "cannot write /proc/nothing/here")
    Path("file").touch()
    assert_fails(charlstm("train", corpus, *QUICK, "-o", "file/run"), 1, "cannot write file/run")


def test_a_file_size_limit_gets_one_sentence_and_keeps_the_saved_run(corpus: Path) -> None:
    assert charlstm("train", corpus, *QUICK, "-o", "run").code == 0
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

    result = run_process("train", "--resume", "-o", "run", "--epochs", 2, prepare=little_room)
    assert_fails(result, 1, "cannot write run/last.safetensors: File too large; raise the file-size limit", "--resume")
    for name in ("best.safetensors", "last.safetensors", "state.safetensors"):
        assert Path("run", name).read_bytes() == before[name]
    assert {path.name for path in Path("run").iterdir()} == set(before)
    assert charlstm("train", "--resume", "-o", "run", "--epochs", 2).code == 0


def test_training_continues_when_stderr_is_closed(corpus: Path) -> None:
    train = f"{sys.executable} -m charlstm train {corpus} {' '.join(map(str, QUICK))}"
    result = subprocess.run(["bash", "-c", f"{train} 2> >(head -c 20 > /dev/null)"], capture_output=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, b"runs/little\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_the_run_and_prints_how_to_resume(corpus: Path, number: int, status: int) -> None:
    command = [
        sys.executable,
        "-m",
        "charlstm",
        "train",
        str(corpus),
        *map(str, SMALL),
        "--epochs",
        "100000",
        "-o",
        "run",
    ]
    training = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = Path("run/metrics.jsonl")
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    training.send_signal(number)
    out, err = training.communicate(timeout=60)
    assert training.returncode == status, err
    assert out == ""
    assert "resume with: charlstm train --resume -o run" in err
    assert "Traceback" not in err
    step = ModelFile.load(Path("run/last.safetensors")).metrics["step"]
    assert f"stopped at step {step:,}" in err
    resumed = charlstm("train", "--resume", "-o", "run", "--epochs", 1)
    assert resumed.code == 0, resumed.err


@pytest.fixture
def training(corpus: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains in `run` for as long as the test takes; its lines on stderr."""
    command = [sys.executable, "-m", "charlstm", "train", str(corpus), "-o", "run", *SMALL, "--epochs", "1000000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not Path("run/state.safetensors").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
        process.kill()


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_training_in_a_folder_in_use_is_rejected_with_the_process_id(
    option: str, corpus: Path, training: subprocess.Popen[str]
) -> None:
    second = charlstm("train", corpus, "-o", "run", option, *SMALL, "--max-time", "1s")
    assert_fails(second, 1, "run", f"process {training.pid}")
    assert training.poll() is None


def test_a_killed_run_leaves_no_lock(corpus: Path, training: subprocess.Popen[str]) -> None:
    training.kill()
    training.wait()
    resumed = charlstm("train", "-o", "run", "--resume", "--epochs", 1)
    assert resumed.code == 0, resumed.err


def test_a_run_can_be_sampled_while_it_trains(training: subprocess.Popen[str]) -> None:
    for seed in range(5):
        assert charlstm("sample", "-m", "run", "-l", 10, "--seed", seed).code == 0


def test_patience_ends_training_with_the_reason(corpus: Path) -> None:
    impatient = ("--patience", "2", "--lr", "0.5", "--epochs", "40", "--set", "training.validate_every=10")
    result = charlstm("train", corpus, *QUICK[:-2], *impatient)
    assert result.code == 0
    assert "2 validations without a better loss" in result.err


def test_train_json_is_one_object_per_event(corpus: Path) -> None:
    result = charlstm("train", corpus, *QUICK, "--json")
    assert result.code == 0, result.err
    started, *validated, best, finished = [json.loads(line) for line in result.text.splitlines()]
    assert started["event"] == "started"
    assert {"device", "parameters", "total_steps", "step"} < set(started)
    assert {entry["event"] for entry in validated} == {"validated"}
    assert validated[-1]["best"]
    assert {"loss_nats", "validation_loss_nats", "validation_bpc", "seconds"} < set(validated[-1])
    assert best["event"] == "best_evaluated"
    assert best["validation_loss_nats"] == finished["best_loss_nats"]
    assert (finished["event"], finished["reason"], finished["run"]) == ("finished", "done", "runs/little")
    assert finished["best_loss_nats"] == validated[-1]["validation_loss_nats"]


def test_dry_run_json_is_the_config_as_one_object(corpus: Path) -> None:
    config = json.loads(charlstm("train", corpus, *QUICK, "--dry-run", "--json").out)
    assert (config["model"]["hidden"], config["training"]["epochs"]) == (24, 1)


def test_train_options_that_exclude_each_other_get_one_sentence(corpus: Path) -> None:
    assert_fails(charlstm("train", corpus, "--resume", "--dry-run"), 2, "--resume cannot be combined")
    assert_fails(charlstm("train", corpus, "--find-lr", "--overwrite"), 2, "--find-lr", "cannot be combined")
    assert_fails(charlstm("train", ""), 2, "a path must not be empty")
