"""The model card: what `train --about --license` keeps, and what the README.md of an export says and leaves out."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import charlstm as package
from charlstm.config import (
    CardConfig,
    Config,
    DataConfig,
    ModelConfig,
    RegularizationConfig,
    TrainingConfig,
    is_license,
)
from charlstm.export.card import Measurements, format_card
from charlstm.export.page import render_writing_page
from charlstm.export.training_command import format_training_command
from charlstm.settings import from_dict, resolve
from charlstm.storage.model import ModelFile
from charlstm.tracking.overview import describe_run
from tests.support.command_line import assert_fails, charlstm
from tests.support.onnx_models import make_random_model
from tests.support.texts import ENGLISH, SMALL

TINY = (*SMALL, "--hidden", 8, "--epochs", 1, "-q", "--no-samples")
ABOUT = "Prose for tests; it | says little."
SECRET = "alice-wonderland"


def read_card(model: Path | str, *options: object) -> str:
    exported = charlstm("export", "-m", model, "--onnx", "model.onnx", *options)
    assert exported.code == 0, exported.err
    return Path("README.md").read_text("utf-8")


def test_about_and_license_are_kept_in_the_model_and_can_be_changed_on_resuming(corpus: Path) -> None:
    trained = charlstm("train", corpus, "-o", "run", *TINY, "--about", ABOUT, "--license", "CC-BY-4.0")
    assert trained.code == 0, trained.err
    file = ModelFile.load(Path("run/best.safetensors"))
    assert file.config.card == CardConfig(ABOUT, "CC-BY-4.0")
    assert file.version == package.__version__
    card = read_card("run")
    assert card.startswith('---\nlicense: "cc-by-4.0"\n')
    assert f"# run\n\n{ABOUT}\n" in card
    resumed = charlstm("train", "--resume", "-o", "run", "--epochs", 2, "--license", "MIT OR Apache-2.0", "-q")
    assert resumed.code == 0, resumed.err
    assert ModelFile.load(Path("run/last.safetensors")).config.card == CardConfig(ABOUT, "MIT OR Apache-2.0")
    assert 'license: other\nlicense_name: "MIT OR Apache-2.0"' in read_card("run/last.safetensors")


def test_a_card_has_metrics_settings_version_and_the_training_command(run: Path) -> None:
    card, file = read_card(run, "--weights", "int8"), ModelFile.load(run / "best.safetensors")
    assert f"| validation loss, nats per character | {file.metrics['validation']['loss_nats']:.4f} |" in card
    assert "change of the loss by int8 weights, nats per character of its validation part" in card
    assert f"exported by charlstm {package.__version__}" in card
    assert file.corpus["fingerprint"] in card
    assert re.search(r"Of a sample of 2,000 characters at temperature 1, \d+\.\d% are in runs of 20", card)
    (command,) = re.findall(r"^charlstm train .+$", card, re.MULTILINE)
    assert "letters.txt" in command
    (toml,) = re.findall(r"^```toml\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    assert tomllib.loads(toml)["model"]["hidden"] == 48


def test_a_card_has_the_title_of_the_page(run: Path) -> None:
    prose = Path("runs/prose")
    shutil.copytree(run, prose)
    assert "\n# prose\n" in read_card(prose)
    assert "<h1>prose</h1>" in charlstm("export", "-m", prose, "--html", "-").text


def test_no_exported_file_has_a_path_of_this_machine() -> None:
    home = Path(SECRET)
    home.mkdir()
    (home / "book.txt").write_text(ENGLISH[:4000], "utf-8")
    assert charlstm("train", home / "book.txt", "-o", home / "run", *TINY).code == 0
    assert charlstm("train", home, "-o", home / "other", *TINY).code == 0
    for run in ("run", "other"):
        exported = charlstm("export", "-m", home / run, "--onnx", "model.onnx", "--pytorch", "out")
        assert exported.code == 0, exported.err
        for path in map(Path, exported.text.splitlines()):
            content = path.read_bytes()
            assert SECRET.encode() not in content, path
            assert str(Path().absolute()).encode() not in content, path
    assert "charlstm train FOLDER" in Path("README.md").read_text("utf-8")


def test_a_model_that_was_trained_from_stdin_says_so_in_its_card_page_and_overview(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    config = Config(data=DataConfig(corpus=("-",)), model=ModelConfig(hidden=8, embedding=4))
    file = replace(make_random_model(config.model), config=config)
    file.save(folder / "best.safetensors")
    assert "Training text: `stdin`" in format_card("run", file, Measurements(), "")
    assert "<dd>stdin</dd>" in render_writing_page(file, "run")
    assert describe_run(folder).corpus == ("stdin",)


configs = st.builds(
    Config,
    model=st.builds(
        ModelConfig,
        cell=st.sampled_from(["lstm", "gru-cho"]),
        layers=st.integers(1, 3),
        hidden=st.sampled_from([8, 384]),
        bigrams=st.sampled_from([0, 50]),
        bidirectional=st.booleans(),
        dropout=st.floats(0, 0.9),
        between=st.sampled_from(["plain", "highway"]),
    ),
    data=st.builds(
        DataConfig,
        corpus=st.just(("a b.txt",)),
        level=st.sampled_from(["char", "byte"]),
        document=st.sampled_from(["line", "stream"]),
        separator=st.sampled_from(["", "\n--\n", "'\"$x"]),
        split=st.sampled_from([(0.9, 0.1), (0.8, 0.1, 0.1), (1.0, 0.0)]),
    ),
    training=st.builds(
        TrainingConfig,
        seq_len=st.sampled_from([16, 64]),
        batch_size=st.sampled_from([2, 16]),
        look_ahead=st.sampled_from([8, 32]),
        lr=st.floats(1e-6, 1.0),
        optimizer=st.sampled_from(["adamw", "sgd"]),
        epochs=st.integers(1, 50),
        seed=st.integers(0, 2**53),
    ),
    regularization=st.builds(RegularizationConfig, l1=st.floats(0, 1)),
    card=st.builds(CardConfig, about=st.sampled_from(["", ABOUT]), license=st.sampled_from(["", "MIT"])),
)


@pytest.mark.slow
@given(config=configs)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_training_command_gives_the_same_settings(config: Config) -> None:
    Path("a b.txt").write_text(ENGLISH[:4000], "utf-8")
    words = shlex.split(format_training_command(config))
    planned = charlstm(*words[1:], "--dry-run", "--json", "-q")
    expected = config.to_dict()
    expected["data"]["corpus"] = [str(Path("a b.txt").absolute())]
    assert json.loads(planned.text) == expected, planned.err


def test_the_training_command_of_a_time_limit_leaves_nothing_to_choose(corpus: Path) -> None:
    planned = charlstm("train", corpus, "--max-time", "2s", "--dry-run", "--json", "-q")
    chosen = json.loads(planned.text)
    again = charlstm("train", corpus, *settings_of(chosen), "--dry-run", "--json", "-q")
    assert json.loads(again.text) == chosen


def settings_of(chosen: dict[str, dict[str, object]]) -> list[str]:
    """Return the options of the training command of these settings."""
    return shlex.split(format_training_command(resolve(from_dict(chosen, "test"))))[3:]


@pytest.mark.parametrize("license", ["CC BY", "MIT or", "proprietary!", "MIT AND"])
def test_what_has_not_the_form_of_a_license_is_rejected(license: str, corpus: Path) -> None:
    assert_fails(
        charlstm("train", corpus, "--license", license, "--dry-run"), 2, "--license must be an SPDX expression", license
    )


@pytest.mark.parametrize(
    "license", ["MIT", "GPL-2.0-only WITH Classpath-exception-2.0", "(MIT OR LicenseRef-mine)", ""]
)
def test_an_spdx_expression_is_accepted(license: str) -> None:
    assert is_license(license)
