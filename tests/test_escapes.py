"""A backslash sequence where a newline or tab was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from charlstm.config import DataConfig
from charlstm.vocabulary import ByteVocabulary, CharVocabulary
from tests.support.command_line import assert_fails, charlstm
from tests.support.models import make_untrained_model

HINT = "$'\\n' is a newline"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    make_untrained_model(CharVocabulary("\n abcnt")).save(tmp_path / "plain.safetensors")
    return tmp_path / "plain.safetensors"


@pytest.mark.parametrize("option", ["-p", "--prompt", "--stop"])
def test_a_backslash_sequence_gets_one_line_with_how_to_type_a_newline(plain: Path, option: str) -> None:
    result = charlstm("sample", "-m", plain, "-l", 9, "--seed", 1, "--unknown", "skip", option, "a\\nb\\n")
    assert result.code == 0
    hints = [line for line in result.err.splitlines() if HINT in line]
    assert len(hints) == 1
    assert hints[0].startswith("--stop" if option == "--stop" else "-p")
    assert charlstm("sample", "-m", plain, "-l", 9, "--seed", 1, "--unknown", "skip", option, "a\nb\n", "-q").err == ""


def test_the_hint_comes_before_the_error_about_the_backslash(plain: Path) -> None:
    failed = charlstm("sample", "-m", plain, "-p", "a\\tb")
    assert_fails(failed, 2, "U+005C REVERSE SOLIDUS")
    assert "$'\\t' is a tab" in failed.err.splitlines()[0]
    assert "$'\\r' is a carriage return" in charlstm("fill", "-m", plain, "a_\\r").err
    assert HINT in charlstm("fill", "-m", plain, "--gap", "\\n", "a_").err


def test_the_hint_is_for_what_was_typed(plain: Path) -> None:
    skip = ("-m", plain, "--seed", 1, "--unknown", "skip")
    Path("prompt").write_text("a\\nb", "utf-8")
    for result in (
        charlstm("sample", *skip, "-l", 9, stdin=b"a\\nb"),
        charlstm("sample", *skip, "-l", 9, "--prompt-file", "prompt"),
        charlstm("sample", *skip, "-l", 9, "-p", "a\\xb c:\\a"),
        charlstm("fill", *skip, stdin=b"a\\n_"),
    ):
        assert result.code == 0, result.err
        assert "$'" not in result.err


def test_a_model_that_has_learned_backslashes_gets_no_hint_and_a_model_of_bytes_does(tmp_path: Path) -> None:
    make_untrained_model(CharVocabulary("\n\\abn")).save(tmp_path / "code.safetensors")
    path = tmp_path / "bytes.safetensors"
    make_untrained_model(ByteVocabulary(), DataConfig(level="byte"), bidirectional=False).save(path)
    options = ("-l", 9, "--seed", 1, "-p", "a\\nb", "--stop", "\\n")
    assert "$'" not in charlstm("sample", "-m", tmp_path / "code.safetensors", *options).err
    assert charlstm("sample", "-m", path, *options).err.count(HINT) == 2


def test_a_separator_between_files_gets_the_hint(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text", "utf-8")
    assert HINT in charlstm("corpus", tmp_path, "--separator", "\\n\\n").err
    assert HINT not in charlstm("corpus", tmp_path, "--separator", "\n\n").err
