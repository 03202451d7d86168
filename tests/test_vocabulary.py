"""Characters to ids and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.errors import CharlstmError, UsageError
from charlstm.vocabulary import Bytes, Characters, name_of, vocabulary_from_dict, vocabulary_of

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(texts)
def test_what_is_encoded_is_decoded_again(text: str) -> None:
    vocabulary = vocabulary_of(text)
    assert vocabulary.decode(vocabulary.encode(text)).decode() == text


@given(st.binary(min_size=1))
def test_bytes_of_any_file_come_back(data: bytes) -> None:
    vocabulary = vocabulary_of(data)
    assert vocabulary.size == 256
    assert vocabulary.decode(vocabulary.encode(data)) == data


@given(texts)
def test_the_characters_are_the_sorted_code_points(text: str) -> None:
    assert Characters.of(text).characters == "".join(sorted(set(text)))


@given(texts, st.integers(2, 4))
def test_a_vocabulary_survives_the_model_file(text: str, min_count: int) -> None:
    for vocabulary in (Characters.of(text), Bytes()):
        again = vocabulary_from_dict(vocabulary.to_dict())
        assert again.to_dict() == vocabulary.to_dict()
        assert again.pieces == vocabulary.pieces


@given(texts, texts)
def test_lookup_finds_exactly_the_known_characters(known: str, text: str) -> None:
    ids = Characters.of(known).lookup(text)
    assert [i >= 0 for i in ids] == [character in known for character in text]


def test_rare_characters_share_the_unknown_symbol() -> None:
    vocabulary = Characters.of("aaabbc", min_count=2)
    assert vocabulary.characters == "ab"
    assert vocabulary.size == 3
    assert vocabulary.encode("abcz").tolist() == [0, 1, 2, 2]


def test_a_vocabulary_of_nothing_is_refused() -> None:
    with pytest.raises(CharlstmError, match="--min-count"):
        Characters.of("abc", min_count=2)


def test_an_unknown_character_is_named_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"U\+00E9 LATIN SMALL LETTER E WITH ACUTE.*--unknown skip"):
        Characters.of("abc").encode("cabé", "error")


def test_unknown_characters_can_be_skipped_or_replaced() -> None:
    vocabulary = Characters.of("ab ")
    assert vocabulary.decode(vocabulary.encode("aéb", "skip")) == b"ab"
    assert vocabulary.decode(vocabulary.encode("aéb", "replace")) == b"a b"


def test_control_characters_are_named_and_not_shown() -> None:
    assert name_of("\x1b") == "U+001B"
    assert "'x'" in name_of("x")


def test_bytes_are_counted_as_they_are_written() -> None:
    vocabulary = Characters.of("aé漢")
    assert vocabulary.count_bytes(vocabulary.encode("aé漢漢")) == len("aé漢漢".encode())


@pytest.mark.parametrize("characters", ["ba", "aa", "", "\ud800", 7])
def test_what_cannot_be_a_vocabulary_is_refused(characters: object) -> None:
    with pytest.raises(ValueError):
        vocabulary_from_dict({"unit": "char", "characters": characters, "unknown": False})


def test_ids_are_what_numpy_indexes_with() -> None:
    assert Characters.of("ab").encode("ab").dtype == np.int64
