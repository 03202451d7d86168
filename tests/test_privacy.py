"""What the files of a run reveal about the machine and the user."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from charlstm.storage.model import ModelFile
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ENGLISH, SMALL

SECRET = "alice-wonderland"
TINY = (*SMALL, "--hidden", 8, "--epochs", 1, "-q", "--no-samples")


@pytest.fixture
def home() -> Path:
    """Return a folder with a secret name, with a text in it."""
    home = Path(SECRET)
    home.mkdir()
    (home / "book.txt").write_text(ENGLISH[:4000], "utf-8")
    return home


def files_with_secret(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if SECRET.encode() in path.read_bytes()}


def test_only_the_config_of_a_run_contains_paths(home: Path) -> None:
    config = home / "my.toml"
    config.write_text("[training]\nkeep = 2\n", "utf-8")
    for number, options in enumerate(((), ("--init-from", home / "0", "--config", config))):
        trained = charlstm("train", home / "book.txt", "-o", home / str(number), *TINY, *options)
        assert trained.code == 0, trained.err
        names = {path.name for path in (home / str(number)).iterdir()}
        assert {"best.safetensors", "last.safetensors", "state.safetensors", "metrics.jsonl"} <= names
        assert files_with_secret(home / str(number)) == {"config.toml"}
    assert any(name.startswith("step-") for name in names)
    assert ModelFile.load(home / "1" / "best.safetensors").config.data.corpus == ("book.txt",)
    assert charlstm("train", "--resume", "-o", home / "1", "--epochs", 2, "-q").code == 0
    assert files_with_secret(home / "1") == {"config.toml"}


def test_a_model_does_not_contain_the_name_of_the_folder_it_was_trained_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path("run").absolute()
    monkeypatch.chdir(home)
    assert charlstm("train", ".", "-o", output, *TINY).code == 0
    assert files_with_secret(output) == {"config.toml"}
    assert ModelFile.load(output / "best.safetensors").config.data.corpus == ("*.txt",)
    assert charlstm("eval", "-m", output).code == 0


def test_a_model_does_not_depend_on_where_its_corpus_is(home: Path) -> None:
    (other := Path("elsewhere")).mkdir()
    shutil.copy(home / "book.txt", other)
    for folder in (home, other):
        assert charlstm("train", folder / "book.txt", "-o", folder / "run", *TINY).code == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert (home / "run" / name).read_bytes() == (other / "run" / name).read_bytes()


def test_a_copied_model_names_its_corpus_and_how_to_evaluate_on_it(home: Path) -> None:
    assert charlstm("train", home / "book.txt", "-o", home / "run", *TINY).code == 0
    in_place = charlstm("eval", "-m", home / "run", "--json")
    assert f"{SECRET}/book.txt" in in_place.text
    Path("copies").mkdir()
    copy = shutil.copy(home / "run" / "best.safetensors", "copies/model.safetensors")
    assert_fails(charlstm("eval", "-m", copy), 1, "no run in copies", "(book.txt)", "charlstm eval FILE")
    assert charlstm("eval", "-m", copy, home / "book.txt").code == 0
    assert charlstm("sample", "-m", copy, "-l", 5).code == 0
    novelty = charlstm("sample", "-m", copy, "-l", 5, "--novelty")
    assert_fails(novelty, 1, "no run in copies", "(book.txt)", "run folder with -m")
    Path("copies/config.toml").write_text('title = "a web site"\n', "utf-8")
    assert_fails(charlstm("eval", "-m", copy), 1, "no run in copies")


def test_a_copied_model_of_a_piped_text_says_that_the_text_was_not_copied(home: Path) -> None:
    assert charlstm("train", "-", "-o", "run", *TINY, stdin=(home / "book.txt").read_bytes()).code == 0
    assert charlstm("eval", "-m", "run").code == 0
    Path("copies").mkdir()
    copy = shutil.copy("run/best.safetensors", "copies/model.safetensors")
    assert_fails(charlstm("eval", "-m", copy), 1, "no run in copies", "charlstm eval FILE")
