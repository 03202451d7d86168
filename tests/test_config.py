"""Settings: defaults, sources, ranges, names of earlier versions, and the checks of the config classes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm import settings
from charlstm.config import (
    ALL_SECTIONS,
    SECTIONS,
    AdaptationConfig,
    Config,
    DataConfig,
    ModelConfig,
    RegularizationConfig,
    SamplingConfig,
    TrainingConfig,
    resumable_keys,
)
from charlstm.errors import UsageError
from charlstm.fields import check_value
from charlstm.settings import Setting, updated
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import SMALL


def test_every_default_passes_its_own_check() -> None:
    for section in ALL_SECTIONS.values():
        for f in fields(section):
            assert check_value(f, f.default) == f.default


def test_a_config_written_as_toml_is_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(Config().to_toml(), "utf-8")
    assert settings.resolve(settings.from_file(path)) == Config()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_config_file_may_begin_with_a_byte_order_mark(corpus: Path, encoding: str) -> None:
    data = "[model]\r\nhidden = 77\r\n".encode(encoding)
    Path("my.toml").write_bytes(data)
    for shown in (
        charlstm("train", corpus, "--dry-run", "--config", "my.toml"),
        charlstm("train", corpus, "--dry-run", "--config", "-", stdin=data),
    ):
        assert "hidden = 77\n" in shown.text, shown.err


def test_a_config_file_that_is_not_text_is_a_usage_error(corpus: Path) -> None:
    Path("my.toml").write_bytes("hidden = 'ü'".encode("latin-1"))
    assert_fails(charlstm("train", corpus, "--config", "my.toml"), 2, "my.toml: byte 0xfc at offset 10", "iconv")


def test_a_flag_overrides_a_variable_which_overrides_a_file_which_overrides_a_preset(
    corpus: Path, tmp_path: Path
) -> None:
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
    assert (resolved.training.seq_len, resolved.training.epochs) == (20, 13)
    assert resolved.training.patience == Config().training.patience


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
def test_the_error_for_an_invalid_value_names_the_flag_the_range_and_the_value(
    corpus: Path, flag: str, value: str, words: str
) -> None:
    result = charlstm("train", corpus, flag, value)
    assert result.code == 2
    assert result.err.startswith(
        f"charlstm: {flag} must be {words}" if "add" not in words else f"charlstm: {flag} must be"
    )
    assert words in result.err
    assert repr(value) in result.err


def test_the_error_for_an_unknown_name_suggests_the_nearest_one(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[model]\nhiden = 3\n", "utf-8")
    result = charlstm("train", corpus, "--config", "mine.toml")
    assert result.code == 2
    assert "'model.hiden'; did you mean 'model.hidden'?" in result.err
    assert "did you mean 'training.seed'?" in charlstm("train", corpus, "--set", "training.sed=3").err
    assert "did you mean 'training.lr'?" in charlstm("train", corpus, "--set", "lr=3").err
    assert "unknown preset 'smal'; did you mean 'small'?" in charlstm("train", corpus, "--preset", "smal").err


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400)])
def test_a_duration_is_parsed_to_seconds(text: str, expected: float) -> None:
    assert settings.parse_duration(text) == expected


@given(st.text(max_size=8))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert settings.parse_duration(text) >= 0


def test_a_setting_with_a_flag_is_read_from_its_variable(corpus: Path) -> None:
    result = charlstm("train", corpus, *SMALL, "--dry-run", environ={"CHARLSTM_MIN_COUNT": "x"})
    assert result.code == 2
    assert result.err.startswith("charlstm: CHARLSTM_MIN_COUNT must be a whole number")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: ModelConfig(cell="lstn"),
            "ModelConfig.cell must be one of lstm, .*, not 'lstn'; did you mean 'lstm'?",
        ),
        (lambda: ModelConfig(cell="nope"), "one of lstm, lstm-peephole, .*, jordan, not 'nope'"),
        (lambda: ModelConfig(hidden=0), "ModelConfig.hidden must be a whole number from 1 to 16384, not 0"),
        (lambda: ModelConfig(hidden=2.5), "a whole number from 1 to 16384, not 2.5"),  # type: ignore[arg-type]
        (lambda: ModelConfig(hidden="64"), "a whole number from 1 to 16384, not '64'"),  # type: ignore[arg-type]
        (lambda: ModelConfig(hidden=True), "a whole number"),
        (lambda: ModelConfig(bidirectional="yes"), "true or false, not 'yes'"),  # type: ignore[arg-type]
        (lambda: TrainingConfig(lr=float("nan")), "TrainingConfig.lr must be a number from 1e-08 to 100, not nan"),
        (lambda: TrainingConfig(epochs=float("inf")), "a whole number"),  # type: ignore[arg-type]
        (lambda: TrainingConfig(max_time=-1), "TrainingConfig.max_time must be a time such as 90s"),
        (lambda: DataConfig(split=(0.5, 0.6)), "DataConfig.split must be two or three shares .* that add up to 1"),
        (
            lambda: DataConfig(corpus="a.txt"),  # type: ignore[arg-type]
            "DataConfig.corpus must be a list of paths that are not empty, not 'a.txt'",
        ),
        (lambda: RegularizationConfig(l1=2), "RegularizationConfig.l1 must be a number from 0 to 1, not 2"),
        (lambda: SamplingConfig(temperature=-1), "SamplingConfig.temperature must be a number from 0 to 100"),
        (lambda: AdaptationConfig(adapt_rate=2), "AdaptationConfig.adapt_rate must be a number from 0 to 1"),
        (lambda: Config(model={"hidden": 8}), "Config.model must be a ModelConfig, not {'hidden': 8}"),  # type: ignore[arg-type]
        (lambda: replace(Config().model, layers=0), "ModelConfig.layers must be a whole number from 1 to 64, not 0"),
    ],
)
def test_a_config_class_rejects_an_invalid_value_when_constructed(build: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?").replace("{", r"\{")):
        build()


def test_a_config_class_converts_values_to_the_type_of_the_setting() -> None:
    training = TrainingConfig(lr=1, epochs=2.0)  # type: ignore[arg-type]
    assert (type(training.lr), type(training.epochs)) == (float, int)
    data = DataConfig(corpus=[Path("a.txt")], split=[0.5, 0.5])  # type: ignore[arg-type]
    assert (data.corpus, data.split) == (("a.txt",), (0.5, 0.5))
    assert ModelConfig(hidden=np.int64(8)).hidden == 8  # type: ignore[arg-type]


def test_the_docstring_of_every_section_describes_each_of_its_settings() -> None:
    for section in ALL_SECTIONS.values():
        for f in fields(section):
            assert f"    {f.name}: {f.metadata['help']}" in str(section.__doc__)


def test_the_help_of_every_setting_is_one_sentence_on_one_line() -> None:
    for section in ALL_SECTIONS.values():
        for f in fields(section):
            sentence = f.metadata["help"]
            assert sentence[0].isupper(), sentence
            assert sentence.endswith("."), sentence
            assert ". " not in sentence.replace("et al. ", ""), sentence
            assert len(sentence) < 115, sentence


@pytest.mark.parametrize("key", ["training.lr", "training.epochs", "data.split"])
def test_a_number_too_large_for_a_float_is_out_of_range(corpus: Path, key: str) -> None:
    section, _, name = key.partition(".")
    number = "1" + 400 * "0"
    Path("huge.toml").write_text(f"[{section}]\n{name} = {f'[{number}, 0]' if name == 'split' else number}\n")
    assert_fails(charlstm("train", corpus, "--config", "huge.toml", "--dry-run"), 2, f"{key} must be")


def test_updated_replaces_settings_by_key_and_keeps_the_others() -> None:
    config = updated(Config(), {"model.hidden": 8, "training.lr": "1e-3", "data.split": [0.5, 0.5]}, "the test")
    assert (config.model.hidden, config.training.lr, config.data.split) == (8, 1e-3, (0.5, 0.5))
    assert replace(config, model=Config().model, training=Config().training, data=Config().data) == Config()


def test_updated_names_the_origin_of_an_invalid_value() -> None:
    with pytest.raises(UsageError, match=r"^the test: model.hidden must be a whole number"):
        updated(Config(), {"model.hidden": 0}, "the test")
    with pytest.raises(UsageError, match=r"^--hidden must be a whole number"):
        updated(Config(), {"model.hidden": Setting("x", "--hidden")}, "the test")
    with pytest.raises(UsageError, match=r"^the test: unknown setting 'model.hiden'"):
        updated(Config(), {"model.hiden": 8}, "the test")


@pytest.mark.parametrize("key", resumable_keys())
def test_a_resumable_setting_may_differ_when_resuming(key: str) -> None:
    texts = {"device": "cpu", "precision": "fp32", "engine": "torch", "about": "a text", "license": "MIT"}
    value = texts.get(key.partition(".")[2], 7)
    changed = updated(Config(), {key: value}, "the test")
    assert changed != Config()
    settings.check_resumable(Config(), changed)


def test_the_error_for_a_setting_that_cannot_change_lists_those_that_can() -> None:
    given = {"model.hidden": Setting(8, "--hidden")}
    changed = updated(Config(), given, "the test")
    with pytest.raises(UsageError, match=r"cannot resume: model.hidden is 8 here and 384 in the run; only these can"):
        settings.check_resumable(Config(), changed)
    with pytest.raises(
        UsageError, match=r"cannot resume: --hidden is 8 here .* change: about, accumulate, device, engine"
    ):
        settings.check_resumable(Config(), changed, given)


def test_a_config_file_may_use_the_names_of_earlier_versions(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(
        '[data]\nunit = "byte"\n[training]\noptimiser = "sgd"\nclip_value = 0.0\n[regularisation]\nl1 = 0.5\n', "utf-8"
    )
    config = settings.resolve(settings.from_file(path))
    assert (config.data.level, config.training.optimizer, config.regularization.l1) == ("byte", "sgd", 0.5)


def test_a_removed_setting_in_a_config_file_is_rejected_unless_it_has_its_default(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"training.clip_value = 1.0 is no longer supported; remove this setting"):
        settings.from_toml(b"[training]\nclip_value = 1.0\n", "old.toml")
    with pytest.raises(UsageError, match=r"--set: training.seq_len_start is no longer supported"):
        settings.from_assignments(["training.seq_len_start=0"])


@pytest.mark.parametrize(
    ("assignment", "new"),
    [
        ("training.optimiser=sgd", "training.optimizer"),
        ("data.unit=byte", "data.level"),
        ("regularisation.l1=0", "regularization.l1"),
    ],
)
def test_set_rejects_the_name_of_an_earlier_version_and_gives_the_new_one(assignment: str, new: str) -> None:
    with pytest.raises(UsageError, match=f"--set: {assignment.partition('=')[0]} is now {new}$"):
        settings.from_assignments([assignment])


@pytest.mark.parametrize(("old", "new"), [("OPTIMISER", "OPTIMIZER"), ("UNIT", "LEVEL")])
def test_a_variable_of_an_earlier_version_is_rejected_with_its_new_name(old: str, new: str) -> None:
    with pytest.raises(UsageError, match=f"^CHARLSTM_{old} is now CHARLSTM_{new}$"):
        settings.from_environment({f"CHARLSTM_{old}": "x"}, *SECTIONS)
    assert settings.from_environment({f"CHARLSTM_{old}": "x"}, "sampling") == {}


def test_no_two_settings_share_an_environment_variable() -> None:
    """CHARLSTM_NAME has no section: a value for training would be read by `sample`, too."""
    names = [f.name for section in ALL_SECTIONS.values() for f in fields(section) if f.metadata["flag"]]
    assert sorted(names) == sorted(set(names))
