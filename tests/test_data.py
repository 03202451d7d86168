"""The parts of a split and the windows of a batch."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.data import split as split_module
from charlstm.data.batches import Batches
from charlstm.data.split import MAX_MAPPED, PART_NAMES, Split, Tokens, default_shares
from charlstm.errors import CharlstmError

pytestmark = pytest.mark.slow

splits = st.sampled_from([(0.9, 0.1), (0.8, 0.1, 0.1), (0.5, 0.5), (0.98, 0.01, 0.01)])


@given(st.integers(100, 300), splits)
def test_the_parts_of_a_split_in_order_are_the_whole_corpus(length: int, split: tuple[float, ...]) -> None:
    store = Split(np.arange(length).astype(np.uint16), split)
    parts = [store.part(name) for name in PART_NAMES]
    np.testing.assert_array_equal(np.concatenate([chunk for part in parts for chunk in part.chunks()]), store.ids)


@given(st.lists(st.integers(0, 12), min_size=20, max_size=60), splits)
def test_each_document_is_whole_in_one_part_of_a_split(lengths: list[int], split: tuple[float, ...]) -> None:
    ids = np.concatenate([np.append(np.ones(length, np.uint8), np.uint8(9)) for length in lengths])
    store = Split(ids, split, end_of_document=9)
    for name in PART_NAMES[: len(split)]:
        part = store.part(name)
        assert not len(part) or part.span(0, len(part))[-1] == 9
    assert sum(len(store.part(name)) for name in PART_NAMES) == len(ids)


@given(st.lists(st.integers(1, 60), min_size=3, max_size=9), splits, st.integers(1, 20))
def test_every_part_of_a_split_has_a_document(lengths: list[int], split: tuple[float, ...], chunk: int) -> None:
    ids = np.concatenate([np.append(np.ones(length, np.uint8), np.uint8(9)) for length in lengths])
    with patch.object(split_module, "CHUNK_IDS", chunk):
        store = Split(ids, split, end_of_document=9)
    assert all(len(store.part(name)) for name in PART_NAMES[: len(split)])
    assert sum(len(store.part(name)) for name in PART_NAMES) == len(ids)


@given(st.integers(0, 12), splits, st.booleans())
def test_a_split_of_too_few_characters_or_documents_says_how_many_are_needed(
    count: int, split: tuple[float, ...], documents: bool
) -> None:
    ids, needed = np.full(count, 9, np.uint8), len(split) + (not documents)
    if count >= needed:
        parts = Split(ids, split, 9 if documents else None)
        assert all(len(parts.part(name)) for name in PART_NAMES[: len(split)])
        return
    with pytest.raises(CharlstmError, match=f"the corpus has {count} .* need at least {needed}; "):
        Split(ids, split, 9 if documents else None)


def test_the_default_validation_part_of_a_large_corpus_has_five_million_characters() -> None:
    assert default_shares(1_000_000, (0.9, 0.1)) == (0.9, 0.1)
    assert default_shares(100_000_000, (0.9, 0.1)) == (0.95, 0.05)


def test_ids_mapped_from_a_file_stay_right_after_their_pages_are_released(tmp_path: Path) -> None:
    ids = np.random.default_rng(1).integers(256, size=3 * MAX_MAPPED).astype(np.uint8)
    np.save(tmp_path / "ids.npy", ids)
    part = Tokens(np.load(tmp_path / "ids.npy", mmap_mode="r"), 100, 2 * MAX_MAPPED + 777)
    positions = np.arange(0, len(part), 977)
    for _ in range(2):
        np.testing.assert_array_equal(part[positions], ids[100:][positions])
        np.testing.assert_array_equal(np.concatenate(list(part.chunks())), ids[100 : 2 * MAX_MAPPED + 777])


sizes = st.tuples(st.integers(1, 7), st.integers(1, 5))
segment_lengths = st.integers(0, 40)


def make_batches(size: tuple[int, int], extra: int, seed: int, segment_len: int) -> Batches:
    """Return batches of a text of distinct ids, `extra` characters longer than one window of each stream."""
    seq_len, batch_size = size
    tokens = Tokens(np.arange(seq_len * batch_size + 1 + extra).astype(np.uint16))
    return Batches(tokens, seq_len, batch_size, seed, segment_len=segment_len)


@given(sizes, st.integers(0, 100), st.integers(0, 9), segment_lengths)
def test_segments_are_contiguous_and_targets_follow_their_inputs(
    size: tuple[int, int], extra: int, seed: int, segment_len: int
) -> None:
    batches = make_batches(size, extra, seed, segment_len)
    last = None
    for _ in range(2 * batches.steps_per_epoch):
        begins_segment = batches.at_segment_start
        window = batches.next_window()
        x, y = window[:-1], window[1:]
        assert x.shape == y.shape == size
        np.testing.assert_array_equal(y, (x + 1) % len(batches.tokens))
        if not begins_segment:
            np.testing.assert_array_equal(x[0], last)
        last = y[-1]


@given(sizes, st.integers(0, 300), st.integers(0, 9), segment_lengths)
def test_an_epoch_reads_no_character_twice(size: tuple[int, int], extra: int, seed: int, segment_len: int) -> None:
    batches = make_batches(size, extra, seed, segment_len)
    read = np.concatenate([batches.next_window()[:-1].ravel() for _ in range(batches.steps_per_epoch)])
    assert len(np.unique(read)) == len(read)
    lost_windows = 1 + batches.segments  # of each stream
    assert len(read) > len(batches.tokens) - 1 - lost_windows * np.prod(size) - batches.order.size


@given(st.integers(1, 20), st.integers(1, 8), st.integers(0, 2000), st.integers(1, 300))
def test_segments_are_about_as_long_as_asked_for(seq_len: int, batch_size: int, extra: int, segment_len: int) -> None:
    batches = make_batches((seq_len, batch_size), extra, 1, segment_len)
    found = batches.segment_windows * seq_len
    part = (len(batches.tokens) - 1) // batch_size
    assert min(part - seq_len, segment_len * 0.5 - seq_len) < found <= max(2 * segment_len, seq_len)


def test_a_batch_reads_places_all_over_the_text() -> None:
    """Without segments, the first windows of a long text come from as many places as there are streams."""
    tokens = Tokens(np.arange(60_000).astype(np.uint16))
    places = {
        segment_len: np.concatenate([batches.next_window()[0] for _ in range(100)])
        for segment_len in (0, 40)
        for batches in [Batches(tokens, 10, 4, seed=1, segment_len=segment_len)]
    }
    thousands = {key: len(np.unique(found // 1000)) for key, found in places.items()}
    assert thousands[0] <= 8
    assert thousands[40] > 40


@given(st.integers(0, 30), st.sampled_from([0, 10]))
def test_batches_continue_from_a_saved_position(steps: int, segment_len: int) -> None:
    one, two = (
        Batches(Tokens(np.arange(100).astype(np.uint8)), 5, 3, seed=4, segment_len=segment_len) for _ in range(2)
    )
    for _ in range(steps):
        one.next_window()
    two.load_state_dict(one.state_dict())
    for _ in range(15):
        np.testing.assert_array_equal(one.next_window(), two.next_window())


def test_each_epoch_starts_at_another_offset() -> None:
    batches = Batches(Tokens(np.arange(1000).astype(np.uint16)), 10, 4, seed=1)
    offsets = set()
    for _ in range(5):
        offsets.add(batches.offset)
        for _ in range(batches.steps_per_epoch):
            batches.next_window()
    assert len(offsets) == 5


def test_a_text_shorter_than_a_window_of_each_stream_is_an_error_that_names_the_options() -> None:
    with pytest.raises(
        CharlstmError, match=r"has 50 characters, and 4 streams of 16 need at least 65; lower --batch-size or"
    ):
        Batches(Tokens(np.zeros(50, np.uint8)), 16, 4, 0)


def test_a_text_shorter_than_a_window_with_its_look_ahead_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(CharlstmError, match=r"look-ahead of 40 needs at least 57; lower --seq-len or training.look"):
        Batches(Tokens(np.zeros(50, np.uint8)), 16, 2, 0, look_ahead=40)


@pytest.mark.parametrize(("name", "size"), [("seq_len", 6), ("batch_size", 2)])
def test_batches_reject_a_saved_position_of_other_windows(name: str, size: int) -> None:
    batches = Batches(Tokens(np.arange(100).astype(np.uint8)), 5, 3, seed=4)
    with pytest.raises(ValueError, match=f"{name} is {size} in the state"):
        batches.load_state_dict(batches.state_dict() | {name: size})
