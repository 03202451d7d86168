"""`charlstm score`: output, exit status and messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charlstm as package
from charlstm.cli.actions.score import find_offsets
from tests.support.command_line import Result, assert_fails, charlstm
from tests.support.texts import SMALL, WORDS

TYPO = b"the fox and the dog sat on the mat\nthe fox anx the dog sat on the mat\n"


def records(result: Result) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.text.splitlines()]


def table(result: Result) -> list[dict[str, str]]:
    assert result.code == 0, result.err
    header, *rows = [line.split("\t") for line in result.text.removesuffix("\n").split("\n")]
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.fixture(scope="session")
def names_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on lines, each a document."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "names.txt").write_text("anna\nberta\nclara\n" * 100)
    target = folder / "run"
    trained = charlstm("train", folder / "names.txt", "-o", target, *SMALL, "--document", "line", "--epochs", 4)
    assert trained.code == 0, trained.err
    return target


def test_every_character_gets_its_place_log_probability_and_rank(run: Path) -> None:
    Path("x.txt").write_text("Maud\nsaid\n")
    rows = table(charlstm("score", "-m", run, "x.txt"))
    assert list(rows[0]) == ["offset", "line", "column", "character", "log_probability_nats", "rank"]
    assert [row["character"] for row in rows] == [*"Maud", r"\n", *"said", r"\n"]
    assert [int(row["offset"]) for row in rows] == list(range(10))
    assert [(int(row["line"]), int(row["column"])) for row in rows][3:6] == [(1, 4), (1, 5), (2, 1)]
    expected = package.load(run).score("Maud\nsaid\n")
    assert [float(row["log_probability_nats"]) for row in rows] == pytest.approx(expected, abs=1e-4)
    assert all(int(row["rank"]) >= 1 for row in rows)


def test_json_and_the_table_agree(run: Path) -> None:
    rows = table(charlstm("score", "-m", run, stdin=b"Maud said\n"))
    objects = records(charlstm("score", "-m", run, "-", "--json", stdin=b"Maud said\n"))
    assert [entry["log_probability_nats"] for entry in objects] == [float(row["log_probability_nats"]) for row in rows]
    assert "".join(entry["character"] for entry in objects) == "Maud said\n"
    assert list(objects[0]) == ["offset", "line", "column", "character", "log_probability_nats", "rank"]


def test_a_bidirectional_model_also_scores_from_both_sides(bidirectional_run: Path) -> None:
    (first, *_) = records(charlstm("score", "-m", bidirectional_run, "--json", stdin=WORDS.encode()))
    assert {"both_sides_log_probability_nats", "both_sides_rank"} < set(first)
    (row, *_) = table(charlstm("score", "-m", bidirectional_run, stdin=WORDS.encode()))
    assert {"both_sides_log_probability_nats", "both_sides_rank"} < set(row)


def test_worst_finds_a_typo_with_what_was_expected_and_its_context(bidirectional_run: Path) -> None:
    (row,) = table(charlstm("score", "-m", bidirectional_run, "--worst", 1, stdin=TYPO))
    assert (row["line"], row["column"], row["character"], row["expected"]) == ("2", "11", "x", "d")
    assert "the fox an[x] the dog" in row["context"]
    marked = charlstm("score", "-m", bidirectional_run, "--worst", 1, "--color", "always", stdin=TYPO).text
    assert "an\x1b[1;31mx\x1b[0m the" in marked
    found = records(charlstm("score", "-m", bidirectional_run, "--worst", 3, "--json", stdin=TYPO))
    scores = [entry["both_sides_log_probability_nats"] for entry in found]
    assert scores == sorted(scores)
    assert found[0]["before"].endswith("the fox an")
    assert found[0]["after"].startswith(" the dog")


def test_a_unidirectional_model_ranks_the_worst_too(run: Path) -> None:
    assert len(table(charlstm("score", "-m", run, "--worst", 2, stdin=b"the man qas here\n"))) == 2


def test_special_characters_are_escaped_so_that_every_record_is_one_line(tmp_path: Path) -> None:
    Path("x.txt").write_text("a\tb\\c\n" * 300)
    assert charlstm("train", "x.txt", "-o", "m", *SMALL, "--epochs", 1).code == 0
    rows = table(charlstm("score", "-m", "m", stdin=b"a\tb\\c\n"))
    assert [row["character"] for row in rows] == ["a", r"\t", "b", "\\\\", "c", r"\n"]
    (line,) = table(charlstm("score", "-m", "m", "--by", "line", stdin=b"a\tb\\c\n"))
    assert line["text"] == r"a\tb\\c"


def test_a_byte_that_is_not_text_is_shown_as_its_hexadecimal_code(tmp_path: Path) -> None:
    Path("x.txt").write_bytes("é\\\n".encode() * 300)
    assert charlstm("train", "x.txt", "-o", "m", *SMALL, "--level", "byte", "--epochs", 1).code == 0
    rows = table(charlstm("score", "-m", "m", stdin="é\\\n".encode()))
    assert [row["character"] for row in rows] == [r"\xc3", r"\xa9", "\\\\", r"\n"]
    (worst,) = table(charlstm("score", "-m", "m", "--worst", 1, stdin="é".encode()))
    assert worst["context"] in (r"[\xc3]\xa9", r"\xc3[\xa9]")


def test_by_line_gives_the_mean_loss_of_each_line(run: Path) -> None:
    characters = records(charlstm("score", "-m", run, "--json", stdin=b"Maud said\nno\n"))
    lines = records(charlstm("score", "-m", run, "--json", "--by", "line", stdin=b"Maud said\nno\n"))
    assert [(line["line"], line["characters"], line["text"]) for line in lines] == [(1, 10, "Maud said"), (2, 3, "no")]
    for line in lines:
        own = [entry["log_probability_nats"] for entry in characters if entry["line"] == line["line"]]
        assert line["loss_nats"] == pytest.approx(-np.mean(own), abs=1e-5)
    worst = table(charlstm("score", "-m", run, "--by", "line", "--worst", 1, stdin=b"Maud said\nzqxj\n"))
    assert [row["text"] for row in worst] == ["zqxj"]


def test_line_numbers_are_those_of_the_file_though_a_model_of_lines_skips_blank_ones(names_run: Path) -> None:
    text = b"anna\n\n\nberta\nclara"
    found = records(charlstm("score", "-m", names_run, "--json", stdin=text))
    assert "".join(entry["character"] for entry in found) == "anna\nberta\nclara\n"
    assert all(text[entry["offset"] : entry["offset"] + 1].decode() == entry["character"] for entry in found[:-1])
    assert (found[5]["line"], found[5]["column"], found[5]["offset"]) == (4, 1, 7)
    lines = table(charlstm("score", "-m", names_run, "--by", "line", stdin=text))
    assert [(row["line"], row["text"]) for row in lines] == [("1", "anna"), ("4", "berta"), ("5", "clara")]


def test_a_model_of_lines_scores_each_line_on_its_own(names_run: Path) -> None:
    both = table(charlstm("score", "-m", names_run, "--by", "line", stdin=b"anna\nberta\n"))
    alone = table(charlstm("score", "-m", names_run, "--by", "line", stdin=b"berta\n"))
    assert float(both[1]["loss_nats"]) == pytest.approx(float(alone[0]["loss_nats"]), abs=1e-5)


def test_places_stay_right_when_unknown_characters_are_skipped(run: Path, names_run: Path) -> None:
    assert_fails(charlstm("score", "-m", run, stdin="Maud 漢".encode()), 2, "U+6F22", "--unknown skip")
    skipped = records(charlstm("score", "-m", run, "--json", "--unknown", "skip", stdin="a漢b\n漢c\n".encode()))
    assert [(entry["offset"], entry["line"], entry["character"]) for entry in skipped] == [
        (0, 1, "a"),
        (2, 1, "b"),
        (3, 1, "\n"),
        (5, 2, "c"),
        (6, 2, "\n"),
    ]
    names = records(charlstm("score", "-m", names_run, "--json", "--unknown", "skip", stdin="漢anna\n\nx漢a".encode()))
    assert [(entry["offset"], entry["line"]) for entry in names] == [
        *((k, 1) for k in range(1, 6)),
        (9, 3),
        (10, 3),
    ]


def test_several_models_name_the_best_one_for_each_line(run: Path, bidirectional_run: Path) -> None:
    text = b"the fox and the dog sat on the mat\n"
    models = ("-m", f"novel={run}", "-m", f"line={bidirectional_run}", "--unknown", "replace")
    (row,) = table(charlstm("score", *models, stdin=text))
    assert list(row) == ["line", "characters", "best", "margin_nats", "text"]
    assert (row["best"], row["text"]) == ("line", text.decode().strip())
    (entry,) = records(charlstm("score", *models, "--json", stdin=text))
    losses = entry["loss_nats"]
    assert entry["margin_nats"] == pytest.approx((losses["novel"] - losses["line"]) * entry["characters"], abs=1e-3)
    assert float(row["margin_nats"]) == pytest.approx(entry["margin_nats"], abs=1e-5)


def test_a_wrong_request_gets_one_sentence(run: Path) -> None:
    two = ("-m", f"a={run}", "-m", f"b={run}")
    assert_fails(charlstm("score", "-m", run), 2, "no text to score", "FILE")
    assert_fails(charlstm("score", "-m", run, "missing.txt"), 2, "missing.txt")
    assert_fails(charlstm("score", "-m", run, run), 2, "is a folder")
    assert_fails(charlstm("score", "-m", f"a={run}", "-m", f"a={run}", stdin=b"x\n"), 2, "two models are named 'a'")
    assert_fails(charlstm("score", *two, "--by", "character", stdin=b"x\n"), 2, "line by line")
    assert_fails(charlstm("score", *two, "--worst", 3, stdin=b"x\n"), 2, "--worst", "one -m")
    assert_fails(charlstm("score", "-m", run, "--worst", 0, stdin=b"x\n"), 2, "--worst", "0", "from 1 to")


@pytest.mark.parametrize(
    ("document", "text", "offsets"),
    [
        ("stream", "a\n\nb", [0, 1, 2, 3]),
        ("line", "\na\n\nb", [1, 2, 4, 5]),
        ("line", "a\n", [0, 1]),
        ("file", "a\nb\n", [0, 1, 2, 3]),
        ("file", "a\nb", [0, 1, 2, 3]),
    ],
)
def test_the_end_of_a_document_is_where_its_newline_was(document: str, text: str, offsets: list[int]) -> None:
    assert find_offsets(np.array([c == "\n" for c in text]), document).tolist() == offsets


def test_score_reads_another_encoding(run: Path) -> None:
    Path("latin.txt").write_bytes("The caf\u00e9".encode("latin-1"))
    assert_fails(charlstm("score", "latin.txt", "-m", run), 1, "is not utf-8")
    scored = charlstm("score", "latin.txt", "-m", run, "--encoding", "latin-1", "--unknown", "skip")
    assert scored.code == 0, scored.err
    assert len(scored.text.splitlines()) == 1 + len("The caf")
