"""Corpus, parts and batches."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.config import DataConfig
from charlstm.data.batches import Batches
from charlstm.data.corpus import read_corpus
from charlstm.data.tokens import PARTS, TokenStore
from charlstm.errors import CharlstmError, UsageError
from charlstm.vocabulary import vocabulary_of


def read(*sources: object, stdin: bytes | None = None, **settings: str) -> str | bytes:
    config = DataConfig(corpus=tuple(map(str, sources)), **settings)  # type: ignore[arg-type]
    return read_corpus(config, io.BytesIO(stdin) if stdin is not None else None).text


def test_a_folder_is_its_text_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, text in {"b.txt": "B", "a.txt": "A\n", "deep/er/c.txt": "C", "d.md": "no"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "licence.txt").write_text("hidden")
    assert read(tmp_path) == "A\nB\nC\n"
    assert read(tmp_path / "b.txt", "-", stdin=b"piped") == "B\npiped\n"
    assert read(tmp_path, unit="byte") == b"A\nBC"


def test_one_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"no newline\r\nat the end")
    assert read(tmp_path / "x.txt") == "no newline\r\nat the end"


def test_a_bad_byte_is_named_with_file_and_offset(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes("grüße".encode() + b"\xff!")
    with pytest.raises(CharlstmError, match=r"bad\.txt: byte 0xff at offset 7 is not utf-8"):
        read(tmp_path / "bad.txt")
    assert read(tmp_path / "bad.txt", errors="replace") == "grüße\ufffd!"
    assert read(tmp_path / "bad.txt", unit="byte") == "grüße".encode() + b"\xff!"


def test_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("三国".encode("gb18030"))
    assert read(tmp_path / "x.txt", encoding="gb18030") == "三国"
    (tmp_path / "y.txt").write_bytes("\ufeffé".encode())
    assert read(tmp_path / "y.txt") == "é"
    with pytest.raises(UsageError, match="'klingon'"):
        read(tmp_path / "x.txt", encoding="klingon")
    for encoding in ("undefined", "hex"):
        with pytest.raises(UsageError, match=encoding):
            read(tmp_path / "x.txt", encoding=encoding)
    (tmp_path / "half.txt").write_bytes(b"\\ud800")
    with pytest.raises(CharlstmError, match=r"half\.txt is not unicode_escape"):
        read(tmp_path / "half.txt", encoding="unicode_escape")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no corpus .*nothing\.txt"):
        read(tmp_path / "nothing.txt")
    with pytest.raises(UsageError, match=r"holds no \*\.txt file"):
        read(tmp_path)
    with pytest.raises(UsageError, match="stdin is closed"):
        read("-")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(CharlstmError, match=r"the corpus is empty: .*empty\.txt"):
        read(tmp_path / "empty.txt")


splits = st.sampled_from([(0.9, 0.1), (0.8, 0.1, 0.1), (0.5, 0.5), (0.98, 0.01, 0.01)])


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=100, max_size=300), splits)
def test_the_parts_are_the_whole_in_order(text: str, split: tuple[float, ...]) -> None:
    store = TokenStore.of(text, vocabulary_of(text), split)
    parts = [store.part(name) for name in PARTS]
    np.testing.assert_array_equal(np.concatenate(parts), store.ids)
    assert store.ids.dtype == (np.uint8 if len(set(text)) <= 256 else np.uint16)


sizes = st.tuples(st.integers(1, 7), st.integers(1, 5))


@given(sizes, st.integers(0, 100), st.integers(0, 9))
def test_streams_are_contiguous_and_targets_one_character_on(size: tuple[int, int], extra: int, seed: int) -> None:
    seq_len, batch_size = size
    tokens = np.arange(seq_len * batch_size + 1 + extra).astype(np.uint16)
    batches = Batches(tokens, seq_len, batch_size, seed)
    last = None
    for _ in range(2 * batches.steps_per_epoch):
        begins_epoch = batches.at_start
        x, y = batches.next()
        assert x.shape == y.shape == (seq_len, batch_size)
        np.testing.assert_array_equal(y, (x + 1) % len(tokens))
        if not begins_epoch:
            np.testing.assert_array_equal(x[0], last)
        last = y[-1]


@given(sizes, st.integers(0, 50), st.integers(0, 9))
def test_no_character_is_read_twice_in_an_epoch(size: tuple[int, int], extra: int, seed: int) -> None:
    seq_len, batch_size = size
    tokens = np.arange(seq_len * batch_size + 1 + extra).astype(np.uint16)
    batches = Batches(tokens, seq_len, batch_size, seed)
    read = np.concatenate([batches.next()[0].ravel() for _ in range(batches.steps_per_epoch)])
    assert len(np.unique(read)) == len(read)
    assert len(read) > len(tokens) - 1 - batch_size * seq_len - batch_size


@given(st.integers(0, 30))
def test_batches_go_on_from_a_saved_place(steps: int) -> None:
    one, two = (Batches(np.arange(100).astype(np.uint8), 5, 3, seed=4) for _ in range(2))
    for _ in range(steps):
        one.next()
    two.load_state_dict(one.state_dict())
    for _ in range(15):
        np.testing.assert_array_equal(one.next(), two.next())


def test_epochs_cut_the_text_in_other_places() -> None:
    batches = Batches(np.arange(1000).astype(np.uint16), 10, 4, seed=1)
    offsets = set()
    for _ in range(5):
        offsets.add(batches.offset)
        for _ in range(batches.steps_per_epoch):
            batches.next()
    assert len(offsets) == 5


def test_a_text_too_small_says_how_small_and_what_to_lower() -> None:
    with pytest.raises(
        CharlstmError, match=r"has 50 characters, and 4 streams of 16 need at least 65; lower --batch-size or"
    ):
        Batches(np.zeros(50, np.uint8), 16, 4, 0)
