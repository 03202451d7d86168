"""Settings: defaults, sources, ranges."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm import settings
from charlstm.config import ALL_SECTIONS, Config
from charlstm.fields import check_value
from tests.conftest import SMALL, charlstm


def test_every_default_is_within_its_own_range() -> None:
    for section in ALL_SECTIONS.values():
        for f in fields(section):
            assert check_value(f, f.default) == f.default


def test_a_config_survives_toml(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(Config().to_toml(), "utf-8")
    assert settings.resolve(settings.from_file(path)) == Config()


def test_a_flag_beats_a_variable_beats_a_file_beats_a_preset_beats_a_default(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[model]\nhidden = 40\nlayers = 3\n[training]\nseq_len = 20\nbatch_size = 2\n", "utf-8")
    environ = {"CHARLSTM_HIDDEN": "50", "CHARLSTM_LAYERS": "2"}
    result = charlstm(
        "train", corpus, "--preset", "tiny", "--config", file, "--hidden", 60, "--dry-run", environ=environ
    )
    assert result.code == 0, result.err
    (tmp_path / "resolved.toml").write_bytes(result.out)
    resolved = settings.resolve(settings.from_file(tmp_path / "resolved.toml"))
    assert (resolved.model.hidden, resolved.model.layers) == (60, 2)
    assert (resolved.training.seq_len, resolved.training.epochs) == (20, 30)
    assert resolved.training.lr == Config().training.lr


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--hidden", "0", "a whole number from 1 to 16384"),
        ("--hidden", "many", "a whole number from 1 to 16384"),
        ("--hidden", "2.5", "a whole number"),
        ("--dropout", "1", "a number from 0 to 0.95"),
        ("--lr", "nan", "a number from 1e-08 to 10"),
        ("--lr", "inf", "a number"),
        ("--cell", "lstn", "one of lstm, lstm-peephole"),
        ("--split", "0.5,0.6", "add up to 1"),
        ("--split", "1", "add up to 1"),
        ("--max-time", "soon", "a time such as 90s, 5m or 1h30m"),
        ("--precision", "fp16", "one of auto, fp32, bf16"),
    ],
)
def test_a_value_out_of_range_is_refused_with_flag_range_and_value(
    corpus: Path, flag: str, value: str, words: str
) -> None:
    result = charlstm("train", corpus, flag, value)
    assert result.code == 2
    assert result.err.startswith(
        f"charlstm: {flag} must be {words}" if "add" not in words else f"charlstm: {flag} must be"
    )
    assert words in result.err
    assert repr(value) in result.err


def test_an_unknown_key_gets_a_suggestion(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[model]\nhiden = 3\n", "utf-8")
    result = charlstm("train", corpus, "--config", "mine.toml")
    assert result.code == 2
    assert "'model.hiden'; did you mean 'model.hidden'?" in result.err
    assert "did you mean" in charlstm("train", corpus, "--set", "training.sed=3").err
    assert "there is no preset 'smal'; did you mean 'small'?" in charlstm("train", corpus, "--preset", "smal").err


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400)])
def test_durations(text: str, expected: float) -> None:
    assert settings.parse_duration(text) == expected


@given(st.text(max_size=8))
def test_a_duration_is_a_number_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert settings.parse_duration(text) >= 0


def test_settings_with_a_flag_have_a_variable(corpus: Path) -> None:
    result = charlstm("train", corpus, *SMALL, "--dry-run", environ={"CHARLSTM_MIN_COUNT": "x"})
    assert result.code == 2
    assert result.err.startswith("charlstm: CHARLSTM_MIN_COUNT must be a whole number")
