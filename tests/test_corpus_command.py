"""`charlstm corpus`: the table, the JSON object, and recommendations that `train` accepts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ENGLISH, ROOT

pytestmark = pytest.mark.slow


def table(text: str) -> dict[str, str]:
    """Return the rows of a table by name."""
    return {name.strip(): value.strip() for name, _, value in (line.partition("  ") for line in text.splitlines())}


def recommended_options(*arguments: object) -> list[str]:
    """Return the options that `charlstm corpus --json` recommends."""
    shown = charlstm("corpus", *arguments, "--json")
    assert shown.code == 0, shown.err
    return shlex.split(json.loads(shown.text)["suggestion"]["options"])


def test_the_table_shows_statistics_baselines_and_a_preset() -> None:
    shown = charlstm("corpus", ROOT / "corpora" / "english.txt")
    assert shown.code == 0
    assert shown.err == ""
    rows = table(shown.text)
    assert rows["characters"] == "166,420 (166,420 bytes in UTF-8)"
    assert rows["distinct characters"] == "74 (1 occur once)"
    assert rows["scripts"] == "Latin 75.0% (51), Common 25.0% (23)"
    assert rows["rarest"].startswith("X (U+0058) 1, 7 (U+0037) 3, ")
    assert rows["lines"] == "3,624 (959 blank), the longest with 76 characters"
    assert rows["repeated lines"] == "0.2%"
    assert rows["order-0 entropy"] == "4.468 bits/char"
    assert rows["order-3 entropy"] == "2.071 bits/char"
    assert rows["xz"] == "2.771 bits/char"
    assert "tiny is for texts of" in rows["--preset tiny"]


def test_json_has_all_statistics_and_the_recommendation() -> None:
    shown = json.loads(charlstm("corpus", ROOT / "corpora" / "places.txt", "--json").text)
    assert shown["lines"] == 1249
    assert shown["order3_bpc"] is None
    assert shown["scripts"][0] == {"name": "Latin", "distinct": 51, "count": 12189}
    assert shown["suggestion"]["options"] == "--preset names --document line"
    assert shown["suggestion"]["too_small"] is None


def accepts(path: Path, options: list[str]) -> None:
    """Assert that `charlstm train` accepts these options for this text."""
    dry = charlstm("train", path, *options, "--dry-run")
    assert dry.code == 0, (options, dry.err)


@pytest.mark.parametrize("name", ["english.txt", "chinese.txt", "places.txt"])
def test_train_accepts_the_options_recommended_for_a_bundled_corpus(name: str) -> None:
    path = ROOT / "corpora" / name
    accepts(path, recommended_options(path))


words = st.text(st.sampled_from("abcdefg") | st.characters(exclude_categories=["Cs"]), max_size=12)
repeated = st.tuples(st.text(max_size=40), st.integers(1, 40)).map(lambda pair: pair[0] * pair[1])
item_lists = st.lists(words, min_size=25, max_size=200).map("\n".join)
distinct_characters = st.integers(900, 3000).map(lambda n: "".join(map(chr, range(0x4E00, 0x4E00 + n))))
mostly_text = st.tuples(st.integers(0, 6000), st.binary(max_size=20)).map(
    lambda pair: ENGLISH[: pair[0]].encode() + pair[1]
)
texts = (words | repeated | item_lists | distinct_characters).map(str.encode)
OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
signatures = st.sampled_from([OFFICE, b"PK\x03\x04", b"%PDF-1.", b"\x1f\x8b", b"\xfd7zXZ\x00"])
other_formats = st.tuples(signatures, st.binary(max_size=400)).map(b"".join)

NO_TEXT = ("the corpus is empty", "not plain text", "broken", "compressed twice")
"""What the errors for files say that hold no text."""


@settings(max_examples=50, deadline=None)
@given(texts | st.binary(max_size=400) | mostly_text | other_formats)
def test_train_accepts_the_options_recommended_for_a_random_corpus(data: bytes) -> None:
    Path("random.txt").write_bytes(data)
    shown = charlstm("corpus", "random.txt", "--json")
    if shown.code == 1:
        assert any(reason in shown.err for reason in NO_TEXT), shown.err
        return
    suggestion = json.loads(shown.text)["suggestion"]
    if suggestion["options"] is None:
        assert "training needs at least 3" in suggestion["too_small"]
    else:
        accepts(Path("random.txt"), shlex.split(suggestion["options"]))


def test_a_text_too_small_for_training_gets_no_options() -> None:
    Path("x.txt").write_text("a")
    rows = table(charlstm("corpus", "x.txt").text)
    assert rows["too small"] == "The text has 1 character; training needs at least 3."
    assert not [name for name in rows if name.startswith("--")]


def test_no_statistic_is_a_negative_zero() -> None:
    Path("x.txt").write_text("a" * 20)
    assert "-0.0" not in charlstm("corpus", "x.txt").text
    assert "-0.0" not in charlstm("corpus", "x.txt", "--json").text


def repeat_words(size: int) -> str:
    return ("the fox and the dog sat on a mat " * 30)[:size]


@pytest.mark.parametrize("make", [lambda size: ENGLISH[:size], repeat_words, lambda size: ("ab\n" * size)[:size]])
def test_train_accepts_the_options_recommended_for_a_text_of_any_small_size(make: Callable[[int], str]) -> None:
    path = Path("x.txt")
    for size in (*range(3, 50), 63, 64, 65, 98, 99, 100, 101, 110, 127, 128, 129, 255, 256, 300, 1000):
        path.write_text(make(size), "utf-8")
        accepts(path, recommended_options(path))


@pytest.mark.parametrize("size", [3, 4, 7, 20, 99, 100])
def test_a_small_text_can_be_trained_on_as_recommended(size: int) -> None:
    Path("x.txt").write_text(ENGLISH[:size])
    trained = charlstm("train", "x.txt", *recommended_options("x.txt"), "--epochs", 2, "-o", "run")
    assert trained.code == 0, trained.err


def test_the_recommended_options_repeat_the_flags_that_determine_the_text() -> None:
    Path("latin.txt").write_bytes("Grüße aus Wien. ".encode("latin-1") * 100)
    options = recommended_options("latin.txt", "--encoding", "latin-1", "--lower")
    assert options == ["--preset", "tiny", "--batch-size", "1", "--encoding", "latin-1", "--lower"]
    accepts(Path("latin.txt"), options)


def test_stdin_and_folders_can_be_described(tmp_path: Path) -> None:
    assert table(charlstm("corpus", "-", stdin=b"AB\nab\n").text)["characters"].startswith("6 ")
    (tmp_path / "one.txt").write_text("AB\nab\n")
    lower = json.loads(charlstm("corpus", tmp_path, "--lower", "--json").text)
    assert lower["distinct_characters"] == 3
    assert lower["duplicate_lines_share"] == 0.5


def test_a_binary_file_can_be_described(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(bytes(range(256)) * 40)
    shown = charlstm("corpus", tmp_path / "picture")
    assert shown.code == 0
    assert "--level byte" in shown.text
    assert "characters not in utf-8, read as U+FFFD; try another --encoding" in shown.err


def test_undecodable_bytes_are_counted_in_a_warning(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Grüße ".encode("latin-1") * 100)
    assert "200 characters not in utf-8" in charlstm("corpus", tmp_path / "latin.txt").err
    decoded = charlstm("corpus", tmp_path / "latin.txt", "--encoding", "latin-1", "--json")
    assert decoded.err == ""
    assert json.loads(decoded.text)["bytes"] == 800


def test_missing_and_empty_corpora_are_errors(tmp_path: Path) -> None:
    assert_fails(charlstm("corpus", "nothing.txt"), 2, "corpus not found: nothing.txt")
    assert_fails(charlstm("corpus", "-"), 2, "'-' is stdin, and nothing was piped in")
    (tmp_path / "empty.txt").touch()
    assert_fails(charlstm("corpus", tmp_path / "empty.txt"), 1, f"the corpus is empty: {tmp_path / 'empty.txt'}")


@pytest.mark.parametrize("control", ["\x1b[31m", "\x07"])
def test_no_control_character_reaches_the_terminal(tmp_path: Path, control: str) -> None:
    (tmp_path / "x.txt").write_text(ENGLISH[:500] + control)
    assert control[0] not in charlstm("corpus", tmp_path / "x.txt").text


def test_changes_made_while_reading_are_reported() -> None:
    Path("x.txt").write_bytes("one\r\ntwo".encode("utf-16"))
    shown = charlstm("corpus", "x.txt")
    assert "x.txt starts with a byte order mark: read as UTF-16" in shown.err
    assert "converted CR LF line endings to LF" in shown.err
