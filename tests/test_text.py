"""From bytes to text: encodings, newlines, normal forms and documents, for every size of chunk."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlstm.config import DataConfig
from charlstm.data import normalize, sources
from charlstm.data.corpus import Corpus, read_corpus
from charlstm.data.documents import read_codes
from charlstm.data.text import CorpusReader
from charlstm.errors import CharlstmError, UsageError
from charlstm.storage.spool import Spool
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ENGLISH, SMALL

NEWLINES = {"keep": lambda text: text, "lf": lambda text: text.replace("\r\n", "\n").replace("\r", "\n")}

MARK = "\ufeff"

HARD = "aé\u0301\u0308ςΣσ漢😀\r\n \u1100\u1161\u11a8가ｶﾞﾞ\u1165İß'.\u0345\ufeff"
"""Text that a border between chunks could break: accents, syllables, surrogate pairs, newlines, marks, final sigma."""

texts = st.text(st.sampled_from(HARD) | st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def reading(data: bytes, **config: object) -> CorpusReader:
    return CorpusReader(DataConfig(corpus=("-",), **config), Spool(data))  # type: ignore[arg-type]


def without_marks(text: str) -> str:
    """Return a text without byte order marks: all if it begins with one, else those at the start of a line."""
    return text.replace(MARK, "") if text.startswith(MARK) else re.sub(f"(?m)(^|(?<=\r)){MARK}+", "", text)


def text_of(data: bytes, **config: object) -> str:
    return "".join(chunk for chunk in reading(data, **config).read_chunks() if isinstance(chunk, str))


@contextmanager
def chunks_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "READ_BYTES", size)
        yield


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32", "gb18030", "utf-7"])
@given(texts, st.integers(1, 9))
def test_the_size_of_the_chunks_does_not_change_the_decoded_text(encoding: str, text: str, size: int) -> None:
    with chunks_of(size):
        data = text.encode(encoding)
        found = text_of(data, encoding=encoding, newlines="keep")
    assert found == without_marks(MARK + text if encoding in ("utf-16", "utf-32") else text)


@pytest.mark.parametrize("text", ["naïve 漢字 😀\r\nend"])
def test_every_border_between_chunks_gives_the_same_text(text: str) -> None:
    for size in range(1, len(text.encode()) + 1):
        with chunks_of(size):
            assert text_of(text.encode()) == NEWLINES["lf"](text), size


@settings(max_examples=300, deadline=None)
@given(
    texts, st.integers(1, 9), st.sampled_from(["none", "nfc", "nfkc"]), st.booleans(), st.sampled_from(["lf", "keep"])
)
def test_normalizing_chunks_equals_normalizing_the_whole_text(
    text: str, size: int, form: str, lower: bool, newlines: str
) -> None:
    with chunks_of(size):
        found = text_of(text.encode(), normalize=form, lower=lower, newlines=newlines)
    expected = NEWLINES[newlines](without_marks(text))
    if form != "none":
        expected = unicodedata.normalize(form.upper(), expected)  # type: ignore[arg-type]
    assert found == (expected.lower() if lower else expected)


def test_an_endless_run_of_accents_is_normalized_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalize, "MAX_TAIL", 50)
    with chunks_of(20):
        found = text_of(("e" + "\u0301" * 500).encode(), normalize="nfc")
    assert unicodedata.normalize("NFD", found) == "e" + "\u0301" * 500


def test_a_prompt_is_normalized_as_the_corpus_was() -> None:
    Path("x.txt").write_text(ENGLISH[:4000].replace("e", "e\u0301"), "utf-8")
    trained = charlstm("train", "x.txt", *SMALL, "--epochs", 1, "--lower", "--normalize", "nfc")
    assert trained.code == 0, trained.err
    sampled = charlstm("sample", "-p", "THE\u0301", "-l", 5, "--seed", 1)
    assert sampled.code == 0, sampled.err
    assert sampled.text.startswith("THE\u0301")
    assert_fails(charlstm("train", "x.txt", "--level", "byte", "--lower", "-o", "y"), 2, "--lower", "--level byte")


def test_train_reports_converted_line_endings() -> None:
    Path("x.txt").write_bytes(ENGLISH[:4000].replace("\n", "\r\n").encode())
    folded = charlstm("train", "x.txt", *SMALL, "--dry-run")
    assert "converted CR LF line endings to LF" in folded.err
    kept = charlstm("train", "x.txt", *SMALL, "--dry-run", "--newlines", "keep")
    assert "line endings" not in kept.err
    assert read_corpus(DataConfig(corpus=("x.txt",))).fingerprint == Corpus.from_text(ENGLISH[:4000]).fingerprint


@pytest.mark.parametrize("bom", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE])
def test_a_byte_order_mark_determines_the_encoding(bom: bytes) -> None:
    encoding = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}.get(bom)
    data = bom + "grüße 漢".encode(encoding or "utf-32-le")
    assert text_of(data) == "grüße 漢"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_byte_order_marks_of_joined_files_are_removed_and_reported(encoding: str, end: str) -> None:
    files = [f"{word}{end}".encode(encoding) for word in ("one", "two", "three")]
    plain = json.loads(charlstm("corpus", "-", "--json", stdin=end.join(("one", "two", "three", "")).encode()).text)
    for data in (b"".join(files), b"".join(map(gzip.compress, files)), gzip.compress(b"".join(files))):
        joined = charlstm("corpus", "-", "--json", stdin=data)
        assert json.loads(joined.text) == plain
        assert joined.err.count("byte order marks") == 1
        assert "removed 2 byte order marks (U+FEFF) inside the text, where joined files begin\n" in joined.err


def test_a_byte_order_mark_at_the_start_of_a_line_is_removed_though_the_first_file_has_none() -> None:
    Path("joined.txt").write_bytes(b"one\r\n" + "two\n".encode("utf-8-sig"))
    assert text_of(Path("joined.txt").read_bytes()) == "one\ntwo\n"
    assert "removed 1 byte order mark " in charlstm("corpus", "joined.txt").err


def test_every_file_of_a_corpus_may_begin_with_a_byte_order_mark() -> None:
    for name, encoding in {"a": "utf-8-sig", "b": "utf-16", "c": "utf-8", "d": "utf-16"}.items():
        Path(f"{name}.txt").write_text(f"{name}\n", encoding)
    reader = CorpusReader(DataConfig(corpus=(".",)))
    assert "".join(map(str, reader.read_chunks())) == "a\nb\nc\nd\n"
    assert list(reader.notes()) == ["2 files, such as b.txt, start with a byte order mark: read as UTF-16"]


def test_a_word_joiner_within_a_line_is_kept_and_reported() -> None:
    assert text_of(f"Moby{MARK}-Dick\n".encode()) == f"Moby{MARK}-Dick\n"
    assert "kept 1 U+FEFF within lines" in charlstm("corpus", "-", stdin=f"Moby{MARK}-Dick\n".encode()).err
    assert Corpus.from_text(f"a\n{MARK}b".encode()).ids.tolist() == [97, 10, 0xEF, 0xBB, 0xBF, 98]  # bytes stay


def test_joined_files_of_different_encodings_are_an_error() -> None:
    little, big = codecs.BOM_UTF16_LE + "one\n".encode("utf-16-le"), codecs.BOM_UTF16_BE + "two\n".encode("utf-16-be")
    assert_fails(
        charlstm("train", "-", stdin=little + big), 1, "the byte order changes at offset 10;", "instead of joining them"
    )
    assert_fails(charlstm("train", "-", stdin=b"zero\n" + little), 1, "offset 5", "instead of joining them")


def test_a_byte_order_mark_takes_precedence_over_the_encoding_option() -> None:
    Path("x.txt").write_text("grüße", "utf-8-sig")
    reader = CorpusReader(DataConfig(corpus=("x.txt",), encoding="latin-1"))
    assert "".join(map(str, reader.read_chunks())) == "grüße"
    assert list(reader.notes()) == ["x.txt starts with a byte order mark: read as UTF-8"]


def test_an_undecodable_byte_is_an_error_with_file_and_offset(tmp_path: Path) -> None:
    def read(**config: object) -> str:
        return "".join(map(str, CorpusReader(DataConfig(corpus=("bad.txt",), **config)).read_chunks()))  # type: ignore[arg-type]

    for size in (1, 2, 3, 100):
        with chunks_of(size):
            Path("bad.txt").write_bytes("grüße".encode() + b"\xff!")
            with pytest.raises(CharlstmError, match=r"bad\.txt: byte 0xff at offset 7 is not utf-8"):
                read()
            Path("bad.txt").write_bytes("grüße漢".encode()[:-1])
            with pytest.raises(CharlstmError, match=r"bad\.txt: byte 0xe6 at offset 7 is not utf-8"):
                read()
            Path("bad.txt").write_bytes("三国".encode("gb18030") + b"\xff")
            with pytest.raises(CharlstmError, match=r"bad\.txt: byte 0xff at offset 4 is not gb18030"):
                read(encoding="gb18030")
    Path("bad.txt").write_bytes("grüße".encode() + b"\xff!")
    assert read(errors="replace") == "grüße\ufffd!"
    assert Corpus.from_text("grüße".encode() + b"\xff!").ids.tolist() == [*"grüße".encode(), 255, ord("!")]


def test_an_undecodable_byte_is_reported_for_the_file_that_contains_it() -> None:
    Path("a.txt").write_text("grüße", "utf-8")
    Path("b.txt").write_text("grüße", "latin-1")
    assert_fails(charlstm("train", "a.txt", "b.txt"), 1, "b.txt", "0xfc", "offset 2", "--encoding")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32", "gb18030", "unicode_escape"])
def test_a_nul_is_reported_at_its_own_offset_in_every_encoding(encoding: str) -> None:
    before = "grüße " * 3
    for data in (f"{before}\0 end", "e\0 end"):
        offset = len(data[: data.index("\0")].encode(encoding))
        for size in (*range(1, 9), len(before), 100):
            with chunks_of(size), pytest.raises(CharlstmError, match=rf"contains a NUL at offset {offset},"):
                text_of(data.encode(encoding), encoding=encoding)


def test_an_offset_after_a_byte_order_mark_counts_the_mark() -> None:
    for size in (4, 5, 6, 100):
        with chunks_of(size):
            with pytest.raises(CharlstmError, match="a NUL at offset 6,"):
                text_of(codecs.BOM_UTF8 + b"abc\0")
            with pytest.raises(CharlstmError, match="byte 0xff at offset 6 is"):
                text_of(codecs.BOM_UTF8 + b"abc\xff", encoding="utf-8-sig")
            with pytest.raises(CharlstmError, match="a NUL at offset 4,"):
                text_of(codecs.BOM_UTF16_LE + b"a\0\0\0b\0")


@pytest.mark.parametrize("at", [0, 5, 2**20 - 1, 2**20, 2**20 + 1, 2**21 - 1, 2**21 + 7])
def test_train_reports_the_exact_offset_of_a_nul_and_of_an_invalid_byte(at: int) -> None:
    text = ("e" * (at % 2) + "é" * 2**20 + "e" * 100).encode()  # a character begins at the offset
    Path("good.txt").write_bytes(text)
    for byte, message in ((b"\0", "contains a NUL at offset {},"), (b"\xff", "byte 0xff at offset {} is not")):
        damaged = text[:at] + byte + text[at:]
        for data in (damaged, gzip.compress(damaged, 1)):
            Path("x.txt").write_bytes(data)
            assert_fails(charlstm("train", "good.txt", "x.txt"), 1, "x.txt", message.format(at))
            assert_fails(charlstm("train", "-", stdin=data), 1, "stdin", message.format(at))


def test_a_lone_surrogate_is_not_text() -> None:
    for data, encoding in ((b"\xed\xa0\x80", "utf-8"), (b"\x00\xd8", "utf-16-le"), (b"\\ud800", "unicode_escape")):
        with pytest.raises(CharlstmError, match="is not"):
            text_of(b"a" * (2 if "16" in encoding else 1) + data, encoding=encoding)
    for size in (1, 3, 100):
        with chunks_of(size), pytest.raises(CharlstmError, match=r"surrogate U\+D800 at offset 2 is not a character"):
            text_of(rb"ab\ud800", encoding="unicode_escape")


def test_a_nul_is_an_error_in_text_but_not_in_bytes() -> None:
    Path("x.txt").write_bytes(b"some text\0 and more")
    assert_fails(charlstm("train", "x.txt"), 1, "x.txt contains a NUL", "--encoding", "utf-16-le", "--level byte")
    assert text_of(b"a\0b", errors="replace") == "a\ufffdb"
    assert 0 in Corpus.from_text(b"a\0b").ids


def test_an_unknown_encoding_is_a_usage_error() -> None:
    for encoding in ("klingon", "undefined", "hex"):
        with pytest.raises(UsageError, match=encoding):
            reading(b"", encoding=encoding)


def documents(data: bytes, document: str, **config: object) -> list[str]:
    """Return the text of each document. Fails if a document has no end."""
    level = str(config.get("level", "char"))
    found = [code for chunk in read_codes(reading(data, document=document, **config)) for code in chunk.tolist()]
    end = 0xD800 if level == "char" else 0x100
    pieces: list[str] = [""]
    for code in found:
        pieces = [*pieces, ""] if code == end else [*pieces[:-1], pieces[-1] + chr(code)]
    assert pieces.pop() == ""
    return pieces


@pytest.mark.parametrize("level", ["char", "byte"])
@given(st.lists(st.text("ab\n", max_size=5), max_size=6), st.integers(1, 4))
def test_each_line_except_empty_ones_is_a_document(level: str, pieces: list[str], size: int) -> None:
    text = "\n".join(pieces)
    with chunks_of(size):
        found = documents(text.encode(), "line", level=level)
    assert found == [line for line in text.split("\n") if line]


@given(st.text("ab\n", max_size=12), st.integers(1, 4))
def test_a_file_is_one_document_without_its_last_newline(text: str, size: int) -> None:
    with chunks_of(size):
        found = documents(text.encode(), "file")
    assert found == ([text.removesuffix("\n")] if text.removesuffix("\n") else [])


def test_documents_end_at_the_end_of_their_file() -> None:
    for name, text in {"a": "one\ntwo", "b": "three\n", "c": ""}.items():
        Path(name).write_text(text)

    def read(document: str) -> Corpus:
        return read_corpus(DataConfig(corpus=("a", "b", "c"), document=document))

    assert read("line").documents == 3
    assert read("file").documents == 2
    lines = read("line")
    assert lines.ids[-1] == lines.vocabulary.end_of_document
    fingerprints = {read(document).fingerprint for document in ("line", "stream")}
    assert len(fingerprints) == 2, "the borders of files separate documents"


def test_a_line_of_50_megabytes_is_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0
    piped = Spool(b"x" * 50_000_000)
    for chunk in read_codes(CorpusReader(DataConfig(corpus=("-",), normalize="nfc"), piped)):
        longest = max(longest, len(chunk))
    assert longest <= 2 * sources.READ_BYTES
