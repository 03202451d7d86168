"""`charlstm corpus`, as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ENGLISH, ROOT, charlstm, one_sentence


def table(text: str) -> dict[str, str]:
    """The rows of a table by their names."""
    return {name.strip(): value for name, _, value in (line.partition("  ") for line in text.splitlines())}


def test_it_shows_what_a_text_is_made_of() -> None:
    found = charlstm("corpus", ROOT / "corpora" / "english.txt")
    assert found.code == 0
    assert found.err == ""
    shown = {name: value.strip() for name, value in table(found.text).items()}
    assert shown["characters"] == "166,420 (166,420 bytes in UTF-8)"
    assert shown["distinct"] == "74, 1 of them seen once"
    assert shown["scripts"] == "Latin 75.0% (51), Common 25.0% (23)"
    assert shown["rarest"].startswith("X (U+0058) 1, 7 (U+0037) 3, ")
    assert shown["lines"] == "3,624, 959 of them blank; the longest has 76 characters"
    assert shown["repeated lines"] == "0.2%"
    assert shown["entropy"] == "4.468 bits/char"
    assert shown["given 3 before"] == "2.071 bits/char"
    assert shown["xz"] == "2.771 bits/char"
    assert "tiny is for texts of" in shown["--preset tiny"]


def test_json_has_all_of_it_and_the_suggestion() -> None:
    found = json.loads(charlstm("corpus", ROOT / "corpora" / "places.txt", "--json").text)
    assert found["lines"] == 1249
    assert found["order3_bpc"] is None
    assert found["scripts"][0] == {"name": "Latin", "distinct": 51, "count": 12189}
    assert found["suggestion"]["options"] == "--preset names --document line"


def test_what_it_suggests_can_be_typed() -> None:
    for name in ("english.txt", "chinese.txt", "places.txt"):
        path = ROOT / "corpora" / name
        options = json.loads(charlstm("corpus", path, "--json").text)["suggestion"]["options"]
        tried = charlstm("train", path, *options.split(), "--dry-run")
        assert tried.code == 0, tried.err


def test_it_reads_a_pipe_and_a_folder_and_in_lower_case(tmp_path: Path) -> None:
    assert table(charlstm("corpus", "-", stdin=b"AB\nab\n").text)["characters"].strip().startswith("6 ")
    (tmp_path / "one.txt").write_text("AB\nab\n")
    lower = json.loads(charlstm("corpus", tmp_path, "--lower", "--json").text)
    assert lower["distinct_characters"] == 3
    assert lower["duplicate_lines_share"] == 0.5


def test_what_is_not_text_is_looked_at_as_well(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(bytes(range(256)) * 40)
    found = charlstm("corpus", tmp_path / "picture")
    assert found.code == 0
    assert "--level byte" in found.text
    assert "characters are not utf-8 and count as U+FFFD; --encoding names another" in found.err


def test_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Grüße ".encode("latin-1") * 100)
    assert "200 characters are not utf-8" in charlstm("corpus", tmp_path / "latin.txt").err
    named = charlstm("corpus", tmp_path / "latin.txt", "--encoding", "latin-1", "--json")
    assert named.err == ""
    assert json.loads(named.text)["bytes"] == 800


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    one_sentence(charlstm("corpus", "nothing.txt"), 2, "there is no corpus nothing.txt")
    one_sentence(charlstm("corpus", "-"), 2, "- reads stdin, and nothing was piped in")
    (tmp_path / "empty.txt").touch()
    one_sentence(charlstm("corpus", tmp_path / "empty.txt"), 1, "the corpus is empty")


@pytest.mark.parametrize("control", ["\x1b[31m", "\x07"])
def test_no_control_character_reaches_the_terminal(tmp_path: Path, control: str) -> None:
    (tmp_path / "x.txt").write_text(ENGLISH[:500] + control)
    assert control[0] not in charlstm("corpus", tmp_path / "x.txt").text


def test_what_is_read_otherwise_than_it_stands_there_is_told() -> None:
    Path("x.txt").write_bytes("one\r\ntwo".encode("utf-16"))
    looked = charlstm("corpus", "x.txt")
    assert "x.txt says that it is UTF-16" in looked.err
    assert "line ends CR LF were made LF" in looked.err
