"""`charlstm train` as a user meets it."""

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
from charlstm.cli.display import size_with
from charlstm.config import DataConfig
from charlstm.data.corpus import Corpus
from charlstm.storage.model import ModelFile
from tests.conftest import ENGLISH, SMALL, charlstm, one_sentence, process

QUICK = (*SMALL, "--epochs", "1")


def test_stdout_is_the_runs_folder_and_nothing_else(corpus: Path) -> None:
    result = charlstm("train", corpus, *QUICK)
    assert result.code == 0, result.err
    assert result.text == "runs/little\n"
    names = {path.name for path in Path("runs/little").iterdir()}
    models = {f"{name}.safetensors" for name in ("best", "last", "state", "good")}
    assert names == {*models, "config.toml", "metrics.jsonl"}


def test_stderr_tells_what_is_trained(corpus: Path) -> None:
    err = charlstm("train", corpus, *QUICK).err
    distinct = len(set(ENGLISH[:4000]))
    assert f"4,000 characters, {distinct} distinct; 3,600 train, 400 val" in err
    assert "lstm 1 x 24" in err
    assert "float32" in err
    assert "nats/char" in err
    assert "best so far" in err


def test_a_model_much_larger_than_its_text_is_remarked_upon(corpus: Path) -> None:
    assert "parameters for each character" not in charlstm("train", corpus, *QUICK, "--dry-run").err
    assert "parameters for each character" in charlstm("train", corpus, "--hidden", 500, "--dry-run").err


def test_a_vocabulary_that_is_most_of_the_model_is_remarked_upon_with_ways_out(corpus: Path) -> None:
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
def test_the_size_that_the_remark_promises_is_what_min_count_leaves(
    least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = presets.bundled_corpus().with_name("chinese.txt").read_text("utf-8")
    monkeypatch.setattr("charlstm.data.split.CHUNK_IDS", 1000)
    for config in (DataConfig(), DataConfig(min_count=2), DataConfig(document="file")):
        left = size_with(Corpus.from_text(text, config), least)
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


def test_a_run_that_is_not_tied_is_not_tied_when_it_is_resumed(corpus: Path) -> None:
    assert charlstm("train", corpus, *QUICK).code == 0
    one_sentence(charlstm("train", corpus, "--resume", "--head", "tied"), 2, "--head is tied here and top in the run")


def test_samples_are_shown_unless_not_wanted(corpus: Path) -> None:
    assert "\n    " in charlstm("train", corpus, *QUICK).err
    assert "\n    " not in charlstm("train", corpus, *QUICK, "--overwrite", "--no-samples").err


def test_quiet_is_quiet(corpus: Path) -> None:
    assert charlstm("train", corpus, *QUICK, "-q").err == ""


def test_without_a_terminal_there_are_lines_and_no_animation(corpus: Path) -> None:
    err = charlstm("train", corpus, *QUICK).err
    assert "\r" not in err
    assert "\x1b" not in err


def test_colour_can_be_forced(corpus: Path) -> None:
    assert "\x1b[2m" in charlstm("train", corpus, *QUICK, "--color", "always").err


def test_a_folder_with_a_run_is_not_overwritten_unasked(corpus: Path) -> None:
    charlstm("train", corpus, *QUICK)
    before = Path("runs/little/best.safetensors").read_bytes()
    one_sentence(charlstm("train", corpus, *QUICK), 2, "runs/little already holds a run", "--resume", "--overwrite")
    assert Path("runs/little/best.safetensors").read_bytes() == before
    assert charlstm("train", corpus, *QUICK, "--overwrite", "--seed", 7).code == 0
    assert Path("runs/little/best.safetensors").read_bytes() != before


def test_files_that_are_not_a_runs_are_left_alone(tmp_path: Path) -> None:
    Path("corpus.txt").write_text(ENGLISH[:4000], "utf-8")
    Path("config.toml").write_text("[model]\nhidden = 24\n", "utf-8")
    one_sentence(charlstm("train", "corpus.txt", *QUICK, "-o", "."), 2, "already holds config.toml", "-o")
    assert Path("config.toml").read_text("utf-8") == "[model]\nhidden = 24\n"
    Path("config.toml").unlink()
    assert charlstm("train", "corpus.txt", *QUICK, "-o", ".").code == 0
    assert Path("corpus.txt").read_text("utf-8") == ENGLISH[:4000]


def test_a_run_is_kept_until_what_overwrites_it_can_begin(corpus: Path, run: Path) -> None:
    charlstm("train", corpus, *QUICK)
    before = Path("runs/little/best.safetensors").read_bytes()
    refused = charlstm("train", corpus, *QUICK, "--overwrite", "--init-from", run)
    one_sentence(refused, 2, "hidden is 48 in that model and 24 here")
    assert Path("runs/little/best.safetensors").read_bytes() == before


def test_a_runs_config_trains_on_the_same_corpus_again(corpus: Path) -> None:
    charlstm("train", corpus, *QUICK)
    again = charlstm("train", "--config", "runs/little/config.toml", "-o", "again")
    assert again.code == 0, again.err
    assert Path("again/best.safetensors").read_bytes() == Path("runs/little/best.safetensors").read_bytes()
    piped = charlstm("train", "--config", "-", "--dry-run", stdin=Path("runs/little/config.toml").read_bytes())
    assert piped.out == Path("runs/little/config.toml").read_bytes()


def test_a_named_pipe_is_as_good_as_stdin(corpus: Path) -> None:
    train = f"{sys.executable} -m charlstm train <(cat {corpus}) {' '.join(map(str, QUICK))}"
    result = subprocess.run(["bash", "-c", train], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "runs/stdin\n"), result.stderr
    assert charlstm("eval", "-m", "runs/stdin").code == 0


def test_resuming_what_had_ended_says_how_to_make_it_go_on(corpus: Path) -> None:
    charlstm("train", corpus, *QUICK)
    again = charlstm("train", "--resume")
    assert again.code == 0
    assert "already complete" in again.err
    assert "--epochs" in again.err


def test_a_run_ignores_the_signals_that_nohup_told_it_to(corpus: Path) -> None:
    train = f"{sys.executable} -m charlstm train {corpus} {' '.join(map(str, QUICK))} -q --epochs 3"
    command = f"trap '' HUP; {train} & sleep 0.1; while kill -HUP $! 2> /dev/null; do sleep 0.2; done; wait $!"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "runs/little\n"), result.stderr


def test_dry_run_shows_the_settings_and_writes_nothing(corpus: Path) -> None:
    result = charlstm("train", corpus, *QUICK, "--dry-run")
    assert result.code == 0
    assert "hidden = 24" in result.text
    assert not Path("runs").exists()
    Path("again.toml").write_bytes(result.out)
    assert charlstm("train", corpus, "--config", "again.toml", "--dry-run").out == result.out


def test_no_corpus_means_the_one_that_ships() -> None:
    result = charlstm("train", "--dry-run")
    assert result.code == 0
    assert "ships with charlstm" in result.err
    assert "english.txt" in result.text


def test_a_corpus_can_be_piped_in_and_the_run_still_evaluated_and_resumed(tmp_path: Path) -> None:
    result = charlstm("train", "-", *QUICK, "-o", "piped", stdin=ENGLISH[:4000].encode())
    assert result.code == 0, result.err
    assert charlstm("eval", "-m", "piped", "--json").code == 0
    assert charlstm("train", "--resume", "-o", "piped", "--epochs", 2).code == 0
    one_sentence(charlstm("train", "-", *QUICK), 2, "nothing was piped in")


def test_byte_models_read_any_file(tmp_path: Path) -> None:
    Path("any.bin").write_bytes(bytes(range(256)) * 20)
    result = charlstm("train", "any.bin", *QUICK, "--level", "byte", "-o", "b")
    assert result.code == 0, result.err
    assert len(charlstm("sample", "-m", "b", "-l", 30, "--raw", "--seed", 1).out) == 30
    assert "bits per byte" in charlstm("eval", "-m", "b").text


def test_rare_characters_are_folded(tmp_path: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:4000] + "漢", "utf-8")
    assert charlstm("train", "x.txt", *QUICK, "--min-count", 2).code == 0
    vocabulary = ModelFile.load(Path("runs/x/best.safetensors")).vocabulary
    assert "漢" not in vocabulary.to_dict()["characters"]
    assert vocabulary.unknown is not None
    evaluated = charlstm("eval", "--json", "--part", "val")
    assert json.loads(evaluated.out)["characters_folded"] >= 1


def test_resume_takes_more_epochs_and_refuses_another_model(corpus: Path) -> None:
    charlstm("train", corpus, *QUICK)
    longer = charlstm("train", corpus, "--resume", "--epochs", 3)
    assert longer.code == 0, longer.err
    assert "resumed at step" in longer.err
    one_sentence(charlstm("train", "--resume", "--hidden", 30), 2, "--hidden is 30 here and 24 in the run")
    one_sentence(charlstm("train", "--resume", "-o", "nowhere"), 2, "nowhere")
    one_sentence(charlstm("train", corpus, "--resume", "--overwrite"), 2, "--resume", "--overwrite")


def test_init_from_takes_the_models_shape_and_names_new_characters(run: Path, tmp_path: Path) -> None:
    Path("x.txt").write_text(ENGLISH[50_000:54_000].replace("a", "å"), "utf-8")
    result = charlstm("train", "x.txt", "--init-from", run, "--batch-size", 4, "--seq-len", 16, "--epochs", 1)
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "start with new weights" in line]
    assert "å" in line.split(": ")[1]
    assert ModelFile.load(Path("runs/x/best.safetensors")).config.model.hidden == 48


def test_bad_input_is_refused_in_one_sentence(tmp_path: Path) -> None:
    one_sentence(charlstm("train", "missing.txt"), 2, "missing.txt")
    Path("folder").mkdir()
    one_sentence(charlstm("train", "folder"), 2, "contains no *.txt file")
    Path("empty.txt").touch()
    one_sentence(charlstm("train", "empty.txt"), 1, "empty")
    Path("short.txt").write_text("too short by far")
    one_sentence(charlstm("train", "short.txt"), 1, "14 characters", "--batch-size")
    one_sentence(charlstm("train", "short.txt", "--dry-run"), 1, "14 characters", "--batch-size")
    Path("tiny.txt").write_text("ab")
    one_sentence(charlstm("train", "tiny.txt", *QUICK), 1, "2 characters", "at least 10")
    Path("bad.txt").write_bytes(b"abc\xff")
    one_sentence(charlstm("train", "bad.txt"), 1, "bad.txt", "0xff", "offset 3")
    one_sentence(charlstm("train", "--frobnicate"), 2, "--frobnicate")
    one_sentence(charlstm("train", "short.txt", "--color", "blue"), 2, "blue")
    assert not Path("runs").exists()


def test_an_unwritable_folder_is_said(corpus: Path) -> None:
    one_sentence(charlstm("train", corpus, *QUICK, "-o", "/proc/nothing/here"), 1, "cannot write /proc/nothing/here")
    Path("file").touch()
    one_sentence(charlstm("train", corpus, *QUICK, "-o", "file/run"), 1, "cannot write file/run")


def test_a_full_disk_ends_in_a_sentence_and_keeps_what_was_saved(corpus: Path) -> None:
    assert charlstm("train", corpus, *QUICK, "-o", "run").code == 0
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

    result = process("train", "--resume", "-o", "run", "--epochs", 2, prepare=little_room)
    one_sentence(result, 1, "cannot write run/last.safetensors: File too large", "free disk space")
    for name in ("best.safetensors", "last.safetensors", "state.safetensors"):
        assert Path("run", name).read_bytes() == before[name]
    assert {path.name for path in Path("run").iterdir()} == set(before)
    assert charlstm("train", "--resume", "-o", "run", "--epochs", 2).code == 0


def test_training_goes_on_when_nobody_listens(corpus: Path) -> None:
    train = f"{sys.executable} -m charlstm train {corpus} {' '.join(map(str, QUICK))}"
    result = subprocess.run(["bash", "-c", f"{train} 2> >(head -c 20 > /dev/null)"], capture_output=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, b"runs/little\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_says_how_to_resume(corpus: Path, number: int, status: int) -> None:
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
def test_a_second_training_in_a_folder_is_refused_with_the_firsts_process_id(
    option: str, corpus: Path, training: subprocess.Popen[str]
) -> None:
    second = charlstm("train", corpus, "-o", "run", option, *SMALL, "--max-time", "1s")
    one_sentence(second, 1, "run", f"process {training.pid}")
    assert training.poll() is None


def test_a_killed_training_leaves_no_lock(corpus: Path, training: subprocess.Popen[str]) -> None:
    training.kill()
    training.wait()
    resumed = charlstm("train", "-o", "run", "--resume", "--epochs", 1)
    assert resumed.code == 0, resumed.err


def test_a_run_can_be_sampled_while_it_trains(training: subprocess.Popen[str]) -> None:
    for seed in range(5):
        assert charlstm("sample", "-m", "run", "-l", 10, "--seed", seed).code == 0


def test_patience_says_why_it_ended(corpus: Path) -> None:
    impatient = ("--patience", "2", "--lr", "0.5", "--epochs", "40", "--set", "training.validate_every=10")
    result = charlstm("train", corpus, *QUICK[:-2], *impatient)
    assert result.code == 0
    assert "2 validations without a better loss" in result.err
