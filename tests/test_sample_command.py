"""`charlstm sample`: output, exit status and messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from charlstm.cli.actions.sample import in_order
from charlstm.config import SamplingConfig
from charlstm.sampling.fragments import Fragment
from charlstm.text_model import load
from tests.support.command_line import assert_fails, charlstm, run_process
from tests.support.texts import ENGLISH, SMALL

SEED = ("--seed", 1)


def test_a_sample_is_the_prompt_the_text_and_one_newline(run: Path) -> None:
    out = charlstm("sample", "-m", run, "-l", 20, "-p", "Tomas", *SEED).text
    assert out.startswith("Tomas")
    assert out.endswith("\n")
    assert len(out) == len("Tomas") + 20 + 1
    assert charlstm("sample", "-m", run, "-l", 20, "-p", "Tomas", *SEED, "--no-echo").text == out.removeprefix("Tomas")
    assert charlstm("sample", "-m", run, "-l", 20, "-p", "Tomas", *SEED, "--raw").text == out.removesuffix("\n")


def test_raw_samples_follow_each_other_with_nothing_between_them(run: Path) -> None:
    three = charlstm("sample", "-m", run, "-l", 20, "-n", 3, *SEED, "--raw").text
    assert len(three) == 60
    assert three[:20] == charlstm("sample", "-m", run, "-l", 20, *SEED, "--raw").text


def test_sample_uses_the_newest_run_and_prints_its_path(run: Path, tmp_path: Path) -> None:
    Path("runs").mkdir()
    for name in ("old", "new"):
        (Path("runs") / name).mkdir()
        (Path("runs") / name / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    result = charlstm("sample", "--temperature", 0.8, "-l", 5)
    assert result.code == 0
    assert "runs/new/best.safetensors, int8, --seed " in result.err
    named = charlstm("sample", "-l", 5, environ={"CHARLSTM_MODEL": "runs/old"})
    assert "runs/old/best.safetensors" in named.err


def test_a_random_seed_is_printed_and_reproduces_the_sample(run: Path) -> None:
    first = charlstm("sample", "-m", run, "-l", 30)
    seed = first.err.split("--seed ")[1].split()[0]
    assert charlstm("sample", "-m", run, "-l", 30, "--seed", seed).out == first.out
    assert charlstm("sample", "-m", run, "-l", 30).out != first.out


def test_a_piped_prompt_is_read_without_its_final_newline(run: Path) -> None:
    assert charlstm("sample", "-m", run, "-l", 5, *SEED, stdin=b"Maud\n").text.startswith("Maud")
    piped = charlstm("sample", "-m", run, "-l", 5, *SEED, stdin=b"Maud\n").out
    assert piped == charlstm("sample", "-m", run, "-l", 5, *SEED, "-p", "Maud").out
    assert piped == charlstm("sample", "-m", run, "-l", 5, *SEED, "--prompt-file", "-", stdin=b"Maud\n").out
    Path("prompt").write_text("Maud\n")
    assert piped == charlstm("sample", "-m", run, "-l", 5, *SEED, "--prompt-file", "prompt").out
    assert_fails(charlstm("sample", "-m", run, "--prompt-file", "-"), 2, "nothing was piped in")


def test_stop_strings_are_not_written(run: Path) -> None:
    out = charlstm("sample", "-m", run, "-l", 300, "-n", 10, *SEED, "--stop", "e", "--raw").text
    assert "e" not in out
    assert "never writes" in charlstm("sample", "-m", run, "-l", 1, *SEED, "--stop", "漢").err


def test_json_is_one_object_per_sample(run: Path) -> None:
    result = charlstm("sample", "-m", run, "-l", 200, "-n", 4, *SEED, "-p", "Ida", "--stop", ".", "--json")
    objects = [json.loads(line) for line in result.text.splitlines()]
    assert [o["index"] for o in objects] == [0, 1, 2, 3]
    assert all(o["prompt"] == "Ida" and o["seed"] == 1 and o["stop_reason"] in ("stop", "length") for o in objects)
    assert all(o["mean_log_probability_nats"] < 0 for o in objects)
    plain = charlstm("sample", "-m", run, "-l", 200, "-n", 4, *SEED, "-p", "Ida", "--stop", ".", "--raw").text
    assert plain == "".join(o["prompt"] + o["text"] for o in objects)


def test_a_lower_temperature_gives_more_likely_text(run: Path) -> None:
    def score(temperature: float) -> float:
        result = charlstm("sample", "-m", run, "-l", 200, *SEED, "-t", temperature, "--json")
        return float(json.loads(result.out)["mean_log_probability_nats"])

    assert score(0.2) > score(1.0) > score(3.0)


def test_the_strictest_filters_equal_greedy_sampling(run: Path) -> None:
    greedy = charlstm("sample", "-m", run, "-l", 50, *SEED, "-t", 0).out
    for filtered in (("--top-k", 1), ("--top-p", 0), ("--min-p", 1)):
        assert charlstm("sample", "-m", run, "-l", 50, *SEED, *filtered).out == greedy


def test_length_0_samples_until_a_stop_string(run: Path) -> None:
    out = charlstm("sample", "-m", run, "-l", 0, "--stop", "\n", *SEED).text
    assert out.count("\n") == 1
    assert_fails(charlstm("sample", "-m", run, "-l", 0, "-n", 2), 2, "-l 0", "--stop")
    assert_fails(charlstm("sample", "-m", run, "-l", 0, "--json"), 2, "-l 0", "--stop")


def test_an_unknown_character_in_the_prompt_is_named_with_the_options_that_accept_it(run: Path) -> None:
    assert charlstm("sample", "-m", run, "-p", "Ida漢").out == b""
    assert_fails(charlstm("sample", "-m", run, "-p", "漢字"), 2, "U+6F22", "--unknown skip", "--unknown replace")
    skipped = charlstm("sample", "-m", run, "-p", "漢Ida", "-l", 9, *SEED, "--unknown", "skip").text
    assert skipped.removeprefix("漢") == charlstm("sample", "-m", run, "-p", "Ida", "-l", 9, *SEED).text
    assert charlstm("sample", "-m", run, "-p", "漢Ida", "-l", 9, *SEED, "--unknown", "replace").text.startswith("漢Ida")


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--temperature", "-1", "from 0 to 100"),
        ("--top-p", "1.1", "from 0 to 1"),
        ("--top-k", "-1", "from 0"),
        ("--length", "-5", "from 0"),
        ("--num", "0", "from 1 to"),
        ("--unknown", "maybe", "skip"),
        ("--stop", "", "must not be empty"),
    ],
)
def test_a_value_out_of_range_gets_one_sentence_with_the_range(run: Path, flag: str, value: str, words: str) -> None:
    assert_fails(charlstm("sample", "-m", run, flag, value), 2, flag, words)


def test_a_missing_model_gets_one_sentence_with_what_to_do(tmp_path: Path) -> None:
    assert_fails(charlstm("eval"), 2, "no run under ./runs", "charlstm train")
    assert_fails(charlstm("sample", "-m", "nothing"), 2, "no model at nothing")
    assert_fails(charlstm("sample", "-m", tmp_path), 2, "holds no model")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_prompt_may_begin_with_a_byte_order_mark(run: Path, encoding: str) -> None:
    asked = ("sample", "-m", run, "-l", 9, *SEED)
    expected = charlstm(*asked, "-p", "Maud\r\nIda").out
    data = b"".join(part.encode(encoding) for part in ("Maud\r\n", "Ida\r\n"))  # as PowerShell's > and >> write it
    piped = charlstm(*asked, stdin=data)
    assert piped.out == expected
    assert "removed 1 byte order mark " in piped.err
    Path("prompt.txt").write_bytes(data)
    assert charlstm(*asked, "--prompt-file", "prompt.txt").out == expected
    assert_fails(charlstm(*asked, stdin=b"\xff\xfeM"), 1, "the prompt: byte 0x4d at offset 2 is not utf-16")


def test_a_model_of_bytes_reads_the_bytes_of_a_prompt_as_they_are() -> None:
    text = ENGLISH[:2000].encode("utf-16")
    Path("x.bin").write_bytes(text)
    assert charlstm("train", "x.bin", *SMALL, "--level", "byte", "--epochs", 1).code == 0
    assert charlstm("sample", "-l", 3, *SEED, stdin=text[:20]).out.startswith(text[:20])


def test_an_endless_prompt_is_rejected_without_reading_it_all(run: Path) -> None:
    endless = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    command = [sys.executable, "-m", "charlstm", "sample", "-m", str(run)]
    result = subprocess.run(command, stdin=endless.stdout, capture_output=True, text=True, timeout=60)
    endless.kill()
    endless.communicate()
    assert result.returncode == 2
    assert "the prompt has more than 1,000,000 characters; " in result.stderr
    assert result.stdout == ""


def test_a_prompt_with_invalid_utf8_is_echoed_unchanged(run: Path) -> None:
    out = charlstm("sample", "-m", run, "-l", 3, *SEED, "--unknown", "skip", stdin=b"Ida\xff").out
    assert out.startswith(b"Ida\xff")
    assert_fails(charlstm("sample", "-m", run, stdin=b"Ida\xff"), 1, "the prompt: byte 0xff at offset 3 is not utf-8")


def test_a_closed_pipe_ends_sampling_quietly(run: Path) -> None:
    command = f"{sys.executable} -m charlstm sample -m {run} -l 0 --seed 1 | head -c 100"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=60)
    assert (result.returncode, len(result.stdout), result.stderr) == (0, 100, b"")


def test_help_into_a_closed_pipe_succeeds() -> None:
    command = f"{sys.executable} -m charlstm train --help | head -c 10"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, b"")


def test_sample_works_with_stdin_closed_and_fails_with_stdout_closed(run: Path) -> None:
    sample = f"{sys.executable} -m charlstm sample -m {run} -l 5 --seed 1"
    closed = subprocess.run(["bash", "-c", f"{sample} <&-"], capture_output=True, text=True, timeout=60)
    assert (closed.returncode, len(closed.stdout), closed.stderr) == (0, 6, "")
    unwritten = subprocess.run(["bash", "-c", f"{sample} >&-"], capture_output=True, text=True, timeout=60)
    assert (unwritten.returncode, unwritten.stderr) == (1, "charlstm: cannot write to stdout: Bad file descriptor\n")


def test_an_error_of_the_prompt_comes_before_the_seed(run: Path) -> None:
    unknown = charlstm("sample", "-p", "漢", environ={"CHARLSTM_MODEL": str(run)})
    assert_fails(unknown, 2, "漢")
    assert "--seed" not in unknown.err


def test_a_full_disk_behind_stdout_gets_one_sentence(run: Path) -> None:
    command = f"{sys.executable} -m charlstm sample -m {run} -l 5 --seed 1 > /dev/full"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "charlstm: cannot write to stdout: No space left on device\n"


def test_output_is_utf8_in_every_locale(run: Path) -> None:
    environ = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    result = run_process("sample", "-m", run, "-p", "é", "--unknown", "skip", "-l", 5, *SEED, environ=environ)
    assert result.code == 0, result.err
    assert result.out.startswith("é".encode())


def test_samples_that_advance_together_are_written_one_after_the_other() -> None:
    fragments = [
        Fragment(1, b"x"),
        Fragment(0, b"a"),
        Fragment(2, b"p", "stop"),
        Fragment(1, b"y", "stop"),
        Fragment(0, b"b", "stop"),
    ]
    assert b"".join(f.text for f in in_order(fragments)) == b"abxyp"
    first = next(in_order(iter([Fragment(0, b"a"), *fragments])))
    assert first.text == b"a"


def test_adapt_writes_in_the_style_of_the_text(run: Path) -> None:
    Path("zog.txt").write_text("zog mab lux " * 300)
    adapt = ("--adapt", "zog.txt", "--adapt-rate", 2e-3)
    before = (run / "best.safetensors").read_bytes()
    plain = charlstm("sample", "-m", run, "-l", 200, *SEED).text
    adapted = charlstm("sample", "-m", run, "-l", 200, *SEED, *adapt).text
    assert adapted.count("mab") > 2 > plain.count("mab")
    assert len(adapted) == len(plain)
    assert charlstm("sample", "-m", run, "-l", 200, *SEED, *adapt).text == adapted
    assert (run / "best.safetensors").read_bytes() == before
    assert charlstm("sample", "-m", run, "-l", 200, *SEED).text == plain


def test_the_text_to_adapt_to_can_be_piped_in_together_with_a_prompt(run: Path) -> None:
    text = b"zog mab lux " * 30
    Path("zog.txt").write_bytes(text)
    asked = ("sample", "-m", run, "-l", 20, *SEED, "--adapt")
    assert charlstm(*asked, "-", stdin=text).out == charlstm(*asked, "zog.txt").out
    prompted = charlstm(*asked, "zog.txt", stdin=b"Maud").out
    assert prompted.startswith(b"Maud")
    assert charlstm(*asked, "-", "-p", "Maud", stdin=text).out == prompted
    assert_fails(charlstm(*asked, "-", "--prompt-file", "-", stdin=text), 2, "both read stdin")
    assert_fails(charlstm(*asked, "-"), 2, "nothing was piped in")


def test_a_text_that_cannot_be_adapted_to_gets_one_sentence(run: Path) -> None:
    Path("empty.txt").touch()
    Path("strange.txt").write_text("Maud 漢 Maud", "utf-8")
    asked = ("sample", "-m", run, "-l", 5, *SEED)
    assert_fails(charlstm(*asked, "--adapt", "missing.txt"), 2, "missing.txt")
    assert_fails(charlstm(*asked, "--adapt", "empty.txt"), 1, "empty")
    assert_fails(charlstm(*asked, "--adapt", "empty.txt", "-p", "漢"), 2, "U+6F22")
    assert_fails(charlstm(*asked, "--adapt", "strange.txt"), 2, "U+6F22", "--unknown skip")
    assert charlstm(*asked, "--adapt", "strange.txt", "--unknown", "skip").code == 0
    assert_fails(charlstm(*asked, "--adapt-rate", 0.1), 2, "--adapt-rate", "without --adapt")


def test_an_argument_gets_a_hint_about_model_and_prompt() -> None:
    assert_fails(charlstm("sample", "runs/letters"), 2, "unexpected extra argument", "name a model with -m")


def test_no_repeat_keeps_a_greedy_sample_out_of_a_loop(run: Path) -> None:
    greedy = ("sample", "-m", run, "-l", 600, "-t", 0, "-p", "The ", *SEED)
    text = charlstm(*greedy).text
    runs = [text[start : start + 12] for start in range(len(text) - 11)]
    assert len(set(runs)) < len(runs) / 2
    text = charlstm(*greedy, "--no-repeat", 12).text
    runs = [text[start : start + 12] for start in range(len(text) - 12)]
    assert len(set(runs)) == len(runs) == 600 + 4 - 11
    assert charlstm(*greedy, environ={"CHARLSTM_NO_REPEAT": "12"}).text == text


def test_a_sample_that_can_only_repeat_itself_ends(run: Path) -> None:
    result = charlstm("sample", "-m", run, "-l", 0, "-p", "the", *SEED, "--no-repeat", 1)
    assert len(set(result.text.removesuffix("\n"))) > 20
    endless = charlstm("sample", "-m", run, "-l", 9999, "-p", "the", *SEED, "--no-repeat", 1, "--json")
    assert json.loads(endless.text)["stop_reason"] == "repeat"


def test_a_stop_string_that_would_be_a_repetition_gets_a_warning(run: Path) -> None:
    options = ("sample", "-m", run, "-l", 30, *SEED, "--stop", "the end", "-p")
    assert "--no-repeat excludes" in charlstm(*options, "in the end ", "--no-repeat", 7).err
    assert "--no-repeat excludes" not in charlstm(*options, "in the end ", "--no-repeat", 8).err
    assert "--no-repeat excludes" not in charlstm(*options, "in the end ").err
    assert_fails(charlstm("sample", "-m", run, "--no-repeat", -1), 2, "--no-repeat", "from 0")


def test_a_clamp_changes_the_sample_and_deviations_are_those_of_the_validation_part(run: Path) -> None:
    plain = charlstm("sample", "-m", run, "--seed", 1, "-l", 60)
    fixed = charlstm("sample", "-m", run, "--seed", 1, "-l", 60, "--clamp", "0.3=2.0", "--clamp", "0.5=0.5")
    moved = charlstm("sample", "-m", run, "--seed", 1, "-l", 60, "--clamp", "0.3=+3", "--clamp", "0.5=-3")
    assert [each.code for each in (plain, fixed, moved)] == [0, 0, 0], moved.err
    assert len({each.text for each in (plain, fixed, moved)}) == 3
    model = load(run).clamp({"0.3": "+3", "0.5": "-3"}, ENGLISH[36_000:40_000])
    assert "".join(model.generate(config=SamplingConfig(length=60), seed=1)) == moved.text.removesuffix("\n")


@pytest.mark.parametrize(
    ("clamps", "message"),
    [
        (("0.3",), "is not UNIT=VALUE"),
        (("0.3=x",), "'x' is not a value"),
        (("0.3=nan",), "is not a value"),
        (("9.3=1",), "there is no unit 9.3"),
        (("backward.0.3=1",), "forward only"),
        (("0.3=1", "0.3=2"), "fixes unit 0.3 twice"),
    ],
)
def test_a_wrong_clamp_gets_one_sentence(run: Path, clamps: tuple[str, ...], message: str) -> None:
    options = [part for clamp in clamps for part in ("--clamp", clamp)]
    assert_fails(charlstm("sample", "-m", run, "-l", 5, *options), 2, message)
