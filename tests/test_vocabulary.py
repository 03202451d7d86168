"""Characters to ids and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.errors import CharlstmError, UsageError
from charlstm.vocabulary import (
    END_OF_DOCUMENT,
    ByteVocabulary,
    CharVocabulary,
    code_points,
    name_character,
    vocabulary_from_dict,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def characters_of(text: str, min_count: int = 1, max_vocab: int = 0, documents: bool = False) -> CharVocabulary:
    return CharVocabulary.from_counts(np.bincount(code_points(text)), min_count, max_vocab, documents)


@given(texts)
def test_what_is_encoded_is_decoded_again(text: str) -> None:
    vocabulary = characters_of(text)
    assert vocabulary.decode(vocabulary.encode(text)).decode() == text


@given(st.binary(min_size=1))
def test_bytes_of_any_file_come_back(data: bytes) -> None:
    vocabulary = ByteVocabulary()
    assert vocabulary.size == 256
    assert vocabulary.decode(vocabulary.encode(data)) == data


@given(texts)
def test_the_characters_are_the_sorted_code_points(text: str) -> None:
    assert characters_of(text).characters == "".join(sorted(set(text)))


@given(texts, st.integers(2, 4))
def test_a_vocabulary_survives_the_model_file(text: str, min_count: int) -> None:
    for vocabulary in (
        characters_of(text),
        characters_of(text * min_count, min_count, 3, True),
        ByteVocabulary(),
        ByteVocabulary(True),
    ):
        again = vocabulary_from_dict(vocabulary.to_dict())
        assert again.to_dict() == vocabulary.to_dict()
        assert again.symbols == vocabulary.symbols


@given(texts, texts)
def test_lookup_finds_exactly_the_known_characters(known: str, text: str) -> None:
    ids = characters_of(known).lookup(text)
    assert [i >= 0 for i in ids] == [character in known for character in text]


def test_rare_characters_share_the_unknown_symbol() -> None:
    vocabulary = characters_of("aaabbc", min_count=2)
    assert vocabulary.characters == "ab"
    assert vocabulary.size == 3
    assert vocabulary.encode("abcz").tolist() == [0, 1, 2, 2]


def test_only_the_most_frequent_are_kept_where_so_many_are_allowed() -> None:
    vocabulary = characters_of("abbcccdd", max_vocab=2)
    assert (vocabulary.characters, vocabulary.unknown, vocabulary.size) == ("bc", 2, 3)
    assert vocabulary.encode("abcd").tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize("vocabulary", [characters_of("ab\n", documents=True), ByteVocabulary(documents=True)])
def test_documents_have_a_symbol_of_their_own_that_no_text_spells(vocabulary: CharVocabulary | ByteVocabulary) -> None:
    assert vocabulary.end_of_document == vocabulary.size - 1 == vocabulary.bos
    assert vocabulary.symbols[vocabulary.end_of_document] == b""
    assert vocabulary.end_of_document not in vocabulary.encode("abba\n")
    assert (
        vocabulary.lookup_or_unknown(np.array([ord("a"), END_OF_DOCUMENT[vocabulary.level]], np.uint16))[1]
        == vocabulary.end_of_document
    )
    assert vocabulary.count_bytes(np.array([vocabulary.end_of_document])) == 1, "it stands for a newline"


@given(texts, st.integers(1, 3), st.booleans())
def test_folding_is_encoding_in_the_smallest_type(text: str, min_count: int, documents: bool) -> None:
    vocabulary = characters_of(text * min_count, min_count, documents=documents)
    ids = vocabulary.lookup_or_unknown(code_points(text))
    assert ids.tolist() == vocabulary.encode(text).tolist()
    assert ids.dtype == (np.uint8 if vocabulary.size <= 256 else np.uint16)


def test_a_vocabulary_of_nothing_is_refused() -> None:
    with pytest.raises(CharlstmError, match="--min-count"):
        characters_of("abc", min_count=2)


def test_an_unknown_character_is_named_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"U\+00E9 LATIN SMALL LETTER E WITH ACUTE.*--unknown skip"):
        characters_of("abc").encode("cabé", "error")


def test_unknown_characters_can_be_skipped_or_replaced() -> None:
    vocabulary = characters_of("ab ")
    assert vocabulary.decode(vocabulary.encode("aéb", "skip")) == b"ab"
    assert vocabulary.decode(vocabulary.encode("aéb", "replace")) == b"a b"


def test_control_characters_are_named_and_not_shown() -> None:
    assert name_character("\x1b") == "U+001B"
    assert "'x'" in name_character("x")


def test_bytes_are_counted_as_they_are_written() -> None:
    vocabulary = characters_of("aé漢")
    assert vocabulary.count_bytes(vocabulary.encode("aé漢漢")) == len("aé漢漢".encode())


@pytest.mark.parametrize("characters", ["ba", "aa", "", "\ud800", 7])
def test_what_cannot_be_a_vocabulary_is_refused(characters: object) -> None:
    with pytest.raises(ValueError):
        vocabulary_from_dict({"unit": "char", "characters": characters, "unknown": False})


def test_ids_are_what_numpy_indexes_with() -> None:
    assert characters_of("ab").encode("ab").dtype == np.int64
