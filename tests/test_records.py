"""`--column` and `--field`: a column of CSV or TSV files, or a field of JSON Lines, as documents."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import charlstm as package
from charlstm.config import DataConfig
from charlstm.data.corpus import read_corpus
from charlstm.storage.locate import STDIN
from charlstm.storage.model import ModelFile
from charlstm.storage.spool import Spool
from charlstm.vocabulary import Vocabulary
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ENGLISH, SMALL

pytestmark = pytest.mark.slow

QUICK = (*SMALL, "--epochs", 1, "--no-samples", "-o", "run")
VALUES = [text for text in ENGLISH[:20_000].split("\n\n") if text][:60]
TRICKY = ["plain", 'a "quoted" word', "two\nlines", "comma, semicolon; tab\t.", "ünï 漢 😀", '"', "'", " spaces "]


def to_csv(rows: list[list[str]], **options: Any) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, **options).writerows(rows)
    return file.getvalue().encode()


def to_jsonl(records: list[Any], **options: Any) -> bytes:
    return "".join(json.dumps(record, **options) + "\n" for record in records).encode()


def documents(data: bytes, name: str = "", **config: Any) -> list[str]:
    """Return the documents of a file, or of stdin without a name, as a model would read them."""
    if name:
        Path(name).write_bytes(data)
    corpus = read_corpus(DataConfig(corpus=(name or STDIN,), **config), None if name else Spool(data))
    vocabulary: Vocabulary = corpus.vocabulary
    assert vocabulary.end_of_document is not None
    text = [vocabulary.symbols[i].decode() if i != vocabulary.end_of_document else "\ue000" for i in corpus.ids]
    assert corpus.documents == text.count("\ue000")
    return "".join(text).split("\ue000")[:-1]


@pytest.mark.parametrize(
    ("options", "pack"),
    [(("--column", "text"), bytes), (("--column", "2"), gzip.compress), (("--field", "post.body"), lzma.compress)],
)
def test_a_model_of_records_is_trained_resumed_evaluated_and_sampled(
    options: tuple[str, str], pack: Callable[[bytes], bytes]
) -> None:
    if options[0] == "--field":
        data = to_jsonl([{"id": 1, "post": {"body": value}} for value in VALUES])
    else:
        data = to_csv([["id", "text"]] * (options[1] == "text") + [["7", value] for value in VALUES])
    Path("data").write_bytes(pack(data))
    trained = charlstm("train", "data", *options, *QUICK)
    assert trained.code == 0, trained.err
    assert "60 documents; " in trained.err
    assert charlstm("train", "--resume", "-o", "run", "--epochs", 2).code == 0
    assert charlstm("sample", "-m", "run", "-n", 2, "--novelty").code == 0
    part, whole = (json.loads(charlstm("eval", "-m", "run", *o, "--json").text) for o in ((), ("data",)))
    assert whole["end_symbols"] == 60
    assert whole["characters"] == len("".join(VALUES)) + 60
    assert whole["bytes"] == len("".join(VALUES).encode()) + 60
    assert 0 < part["end_symbols"] < 60
    piped = charlstm("train", "-", *options, *QUICK, "--overwrite", stdin=pack(data))
    assert piped.code == 0, piped.err
    assert charlstm("train", "--resume", "-o", "run", "--epochs", 2).code == 0
    assert json.loads(charlstm("eval", "-m", "run", "data", "--json").text) == whole
    changed = charlstm("train", "--resume", "-o", "run", "--column", "other")
    assert_fails(changed, 2, "--column is other here")


@settings(max_examples=30)
@given(
    st.lists(st.text(st.sampled_from('a",;\t|\n é漢😀') | st.characters(exclude_categories=["Cs"])), min_size=2),
    st.sampled_from(",\t;|"),
    st.booleans(),
)
def test_the_values_of_all_formats_are_read_as_they_were_written(
    values: list[str], delimiter: str, ascii_only: bool
) -> None:
    values = [value.replace("\0", "").replace("\r", "").replace("\ue000", "") for value in values]
    expected = [value for value in values if value]
    if not expected:
        return
    data = to_csv([["id", "the text", "n"], *(["1", value, "2"] for value in values)], delimiter=delimiter)
    assert documents(data, column="the text", newlines="keep") == expected
    assert documents(data, column="the text") == expected
    numbered = to_csv([["1", value, "2"] for value in values], quoting=csv.QUOTE_ALL)
    assert documents(numbered, column="2") == expected
    assert documents(to_jsonl([{"a": {"b": v}} for v in values], ensure_ascii=ascii_only), field="a.b") == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_marks_and_line_endings_are_no_part_of_a_value(encoding: str, newline: str) -> None:
    table = to_csv([["text", "id"], *([value, "1"] for value in TRICKY)], lineterminator=newline)
    assert documents(table.decode().encode(encoding), column="text") == TRICKY
    lines = to_jsonl([{"text": value} for value in TRICKY], ensure_ascii=False).replace(b"\n", newline.encode())
    assert documents(lines.decode().encode(encoding), field="text") == TRICKY


def test_values_are_normalized_after_they_are_decoded() -> None:
    lines = to_jsonl([{"Text": "\u00c9A\r\nb"}, {"Text": "E\u0301"}])
    assert documents(lines, field="Text", lower=True, normalize="nfc") == ["éa\nb", "é"]
    assert documents(to_csv([["Text"], ["É\r\nX"]]), column="Text", lower=True) == ["é\nx"]


def test_a_file_named_tsv_has_tabs_and_others_the_delimiter_of_their_header() -> None:
    assert documents(b"a,b\tc\n1,2\t3\n", "x.tsv", column="a,b") == ["1,2"]
    assert documents(b"a,b\tc\n1,2\t3\n", "x.csv", column="a") == ["1"]
    assert documents(gzip.compress(b"1\t2,3\n4\t5,6\n"), "y.tsv.gz", column="2") == ["2,3", "5,6"]
    assert documents(b"n;text\n1;a, b, c\n", "german.csv", column="text") == ["a, b, c"]


def test_a_number_counts_columns_without_a_header_and_blank_lines_do_not_count() -> None:
    assert documents(b"\n\n2,1\n\na,b\n", column="1") == ["2", "a"]
    assert documents(b"\n\nx,y\n\na,b\n", column="x") == ["a"]


def test_commas_in_a_text_are_not_taken_for_delimiters() -> None:
    lines = b"12\tone, two, three, four\n13\tfive, six\n14\tseven\n"
    assert documents(lines, column="2") == ["one, two, three, four", "five, six", "seven"]


def test_a_key_may_contain_dots() -> None:
    lines = to_jsonl([{"a.b": "one"}, {"a": {"b": "two"}}, {"a": {"b.c": "x", "b": "three"}}])
    assert documents(lines, field="a.b") == ["one", "two", "three"]
    assert documents(lines, field=".a.b") == ["one", "two", "three"]


def test_records_without_the_value_are_counted_in_one_line() -> None:
    Path("x.csv").write_bytes(b"id,text\n" + b"1,word\n" * 40 + b"2\n3\n4,\n")
    trained = charlstm("train", "x.csv", "--column", "text", *QUICK)
    note = "left out 3 of 43 records: 2 without the column 'text', 1 with an empty value"
    assert [line.strip() for line in trained.err.splitlines() if "left out" in line] == [note]
    records: list[Any] = [{"text": "word"}] * 40 + [
        {"text": 1},
        {"text": None},
        {"text": ["x"]},
        {},
        [],
        "x",
        {"text": ""},
    ]
    Path("x.jsonl").write_bytes(to_jsonl(records))
    note = (
        "left out 7 of 47 records: 3 without the field 'text', 3 with a value that is not text, 1 with an empty value"
    )
    for command in (("corpus",), ("train", *QUICK, "--overwrite"), ("eval", "-m", "run")):
        shown = charlstm(command[0], "x.jsonl", *command[1:], *(("--field", "text") if command[0] != "eval" else ()))
        assert shown.code == 0, shown.err
        assert [line.strip() for line in shown.err.splitlines() if "left out" in line] == [note]


def test_a_corpus_without_any_value_is_empty_and_says_why() -> None:
    Path("x.jsonl").write_bytes(to_jsonl([{"text": "a"}] * 3))
    for command in ("train", "corpus"):
        empty = charlstm(command, "x.jsonl", "--field", "txt")
        assert_fails(empty, 1, "the corpus is empty", "left out 3 of 3 records: 3 without the field 'txt'")


def test_a_malformed_record_is_an_error_with_its_file_and_line() -> None:
    start = b'text,n\n"two\nlines",1\n'
    for bad in (b'"unfinished,2\nx,3\n', b'"a"b,2\n'):
        Path("x.csv").write_bytes(start + bad)
        assert_fails(charlstm("train", "x.csv", "--column", "text"), 1, "x.csv, line 4: not valid CSV")
    for bad in (b'{"text": "a"', b"{'text': 1}", b"[" * 100_000, b'{"text": "a"} x'):
        Path("x.jsonl").write_bytes(b'{"text": "a"}\n\n' + bad + b"\n")
        assert_fails(
            charlstm("train", "x.jsonl", "--field", "text"), 1, "x.jsonl, line 3: not valid JSON", "JSON Lines"
        )
    Path("x.csv").write_bytes(start + b"a\rb,1\n")
    kept = charlstm("train", "x.csv", "--column", "text", "--newlines", "keep")
    assert_fails(kept, 1, "x.csv, line 4: not valid CSV")
    piped = charlstm("train", "-", "--field", "text", stdin=b"{\n")
    assert_fails(piped, 1, "stdin, line 1: not valid JSON")


@pytest.mark.parametrize("escape", ["\\ud800", "\\u0000", "x\\udc00\\ud800"])
def test_an_escape_that_is_no_character_is_an_error_or_replaced(escape: str) -> None:
    data = b'{"text": "a"}\n{"text": "b' + escape.encode() + b'"}\n'
    Path("x.jsonl").write_bytes(data)
    failed = charlstm("train", "x.jsonl", "--field", "text")
    assert_fails(failed, 1, "x.jsonl, line 2", "surrogate", "--errors replace")
    read = documents(data, field="text", errors="replace")
    assert len(read) == 2
    assert set(read[1]) <= {"b", "x", "\ufffd"}


def test_a_missing_column_is_an_error_that_lists_those_of_the_file() -> None:
    Path("x.csv").write_bytes(b"id,body\n1,a\n")
    assert_fails(charlstm("train", "x.csv", "--column", "text"), 2, "no column 'text'", "id, body")
    assert_fails(charlstm("train", "x.csv", "--column", "3"), 2, "no column 3", "its first row has 2")
    assert_fails(charlstm("train", "x.csv", "--column", "0"), 2, "no column '0'")


def test_options_that_contradict_records_are_rejected() -> None:
    Path("x.csv").write_bytes(b"id,body\n1,a\n")
    for options, parts in (
        (("--field", "b"), ("--column and --field",)),
        (("--level", "byte"), ("--column", "--level byte")),
        (("--separator", "x"), ("--column", "--separator")),
        (("--document", "line"), ("--column", "--document")),
        (("--column", ""), ("--column must not be empty",)),
    ):
        assert_fails(charlstm("train", "x.csv", "--column", "body", *options), 2, *parts)
    for command in ("train", "tune", "corpus"):
        assert_fails(charlstm(command, "x.csv", "--field", ""), 2, "--field must not be empty")


def test_a_field_of_a_million_characters_is_read() -> None:
    huge = "x, y\n" * 200_000
    assert documents(to_csv([["text"], ["a"], [huge]]), column="text") == ["a", huge]
    assert documents(to_jsonl([{"text": huge}, {"text": "a"}]), field="text") == [huge, "a"]


def test_a_large_file_is_read_twice_with_the_same_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHARLSTM_CACHE", str(tmp_path / "cache"))
    data = to_csv([["text"], *([value] for value in VALUES), [""]])
    small = documents(data, "x.csv", column="text")
    monkeypatch.setattr("charlstm.data.corpus.MAX_IN_MEMORY", 1000)
    monkeypatch.setattr("charlstm.data.records.JOINED_CHARACTERS", 1)
    assert documents(data, "x.csv", column="text") == small == VALUES
    corpus = read_corpus(DataConfig(corpus=("x.csv",), column="text"))
    assert "left out 1 of 61 records: 1 with an empty value" in corpus.notes


def test_the_fingerprint_distinguishes_a_newline_in_a_value_from_two_values() -> None:
    one, two = (to_jsonl([{"t": text} for text in texts]) for texts in (["a\nb"], ["a", "b"]))
    found = {read_corpus(DataConfig(corpus=(STDIN,), field="t"), Spool(data)).fingerprint for data in (one, two)}
    assert len(found) == 2


def test_a_preset_of_lines_and_a_folder_work_with_records() -> None:
    Path("data").mkdir()
    for k in range(3):
        names = [[str(n), f"Name {chr(97 + n % 26)}{k}"] for n in range(40)]
        Path(f"data/{k}.csv").write_bytes(to_csv([["id", "name"], *names]))
    trained = charlstm("train", "data", "--glob", "*.csv", "--column", "name", "--preset", "names", *QUICK)
    assert trained.code == 0, trained.err
    assert "120 documents" in trained.err
    assert ModelFile.load(Path("run/best.safetensors")).config.data.column == "name"
    searched = charlstm("tune", "data/0.csv", "--column", "name", "--trials", 1, "--time", "0.2s", "-o", "search")
    assert searched.code == 0, searched.err
    assert 'column = "name"' in Path("search/best.toml").read_text()


def test_corpus_recommends_what_train_accepts_for_records_of_any_size() -> None:
    for sizes in ((1, 1), (3, 90), (90, 3), (1, 1, 2000), (40, 40, 40), (9,) * 40, (6, 5000), (20_000, 300)):
        texts = [ENGLISH[k : k + size].replace("\n", " ") for k, size in enumerate(sizes)]
        Path("x.csv").write_bytes(to_csv([["text"], *([text] for text in texts)]))
        shown = json.loads(charlstm("corpus", "x.csv", "--column", "text", "--json").text)
        assert shown["documents"] == len(sizes)
        assert shown["longest_document"] == max(sizes)
        dry = charlstm("train", "x.csv", *shown["suggestion"]["options"].split(), "--dry-run")
        assert dry.code == 0, (sizes, dry.err)
        assert 'column = "text"' in dry.text
    one = charlstm("corpus", "-", "--field", "t", stdin=to_jsonl([{"t": "some text"}]))
    assert "The corpus has 1 document; training needs 2." in one.text


def test_a_plain_text_is_one_document_for_score_and_for_python() -> None:
    Path("x.jsonl").write_bytes(to_jsonl([{"text": value} for value in VALUES]))
    assert charlstm("train", "x.jsonl", "--field", "text", *QUICK).code == 0
    Path("draft.txt").write_text("the sea\nand the", "utf-8")
    scored = charlstm("score", "draft.txt", "-m", "run", "--json")
    assert scored.code == 0, scored.err
    characters = [json.loads(line)["character"] for line in scored.text.splitlines()]
    assert "".join(characters) == "the sea\nand the\n"
    assert package.evaluate("run", "the sea\nand the").characters == len(characters)
    shutil.move("x.jsonl", "y.jsonl")
    moved = charlstm("train", "y.jsonl", "--resume", "-o", "run", "--epochs", 2)
    assert moved.code == 0, moved.err
