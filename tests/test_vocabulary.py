"""The vocabulary: encoding, decoding, unknown characters, the end of a document."""

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


def vocabulary_of(text: str, min_count: int = 1, max_vocab: int = 0, documents: bool = False) -> CharVocabulary:
    return CharVocabulary.from_counts(np.bincount(code_points(text)), min_count, max_vocab, documents)


@given(texts)
def test_decoding_an_encoded_text_returns_the_text(text: str) -> None:
    vocabulary = vocabulary_of(text)
    assert vocabulary.decode(vocabulary.encode(text)).decode() == text


@given(st.binary(min_size=1))
def test_decoding_encoded_bytes_returns_the_bytes(data: bytes) -> None:
    vocabulary = ByteVocabulary()
    assert vocabulary.size == 256
    assert vocabulary.decode(vocabulary.encode(data)) == data


@given(texts)
def test_the_characters_of_a_vocabulary_are_in_the_order_of_their_code_points(text: str) -> None:
    assert vocabulary_of(text).characters == "".join(sorted(set(text)))


@given(texts, st.integers(2, 4))
def test_a_vocabulary_read_from_a_model_file_is_the_same(text: str, min_count: int) -> None:
    for vocabulary in (
        vocabulary_of(text),
        vocabulary_of(text * min_count, min_count, 3, True),
        ByteVocabulary(),
        ByteVocabulary(True),
    ):
        again = vocabulary_from_dict(vocabulary.to_dict())
        assert again.to_dict() == vocabulary.to_dict()
        assert again.symbols == vocabulary.symbols


@given(texts, texts)
def test_lookup_returns_minus_one_for_unknown_characters_only(known: str, text: str) -> None:
    ids = vocabulary_of(known).lookup(text)
    assert [i >= 0 for i in ids] == [character in known for character in text]


def test_characters_rarer_than_min_count_share_the_unknown_symbol() -> None:
    vocabulary = vocabulary_of("aaabbc", min_count=2)
    assert vocabulary.characters == "ab"
    assert vocabulary.size == 3
    assert vocabulary.encode("abcz").tolist() == [0, 1, 2, 2]


def test_max_vocab_keeps_the_most_frequent_characters() -> None:
    vocabulary = vocabulary_of("abbcccdd", max_vocab=2)
    assert (vocabulary.characters, vocabulary.unknown, vocabulary.size) == ("bc", 2, 3)
    assert vocabulary.encode("abcd").tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize("vocabulary", [vocabulary_of("ab\n", documents=True), ByteVocabulary(documents=True)])
def test_the_end_of_a_document_is_a_symbol_that_no_text_contains(vocabulary: CharVocabulary | ByteVocabulary) -> None:
    assert vocabulary.end_of_document == vocabulary.size - 1 == vocabulary.bos
    assert vocabulary.symbols[vocabulary.end_of_document] == b""
    assert vocabulary.end_of_document not in vocabulary.encode("abba\n")
    assert (
        vocabulary.lookup_or_unknown(np.array([ord("a"), END_OF_DOCUMENT[vocabulary.level]], np.uint16))[1]
        == vocabulary.end_of_document
    )
    assert vocabulary.count_bytes(np.array([vocabulary.end_of_document])) == 1, "counted like a newline"


@given(texts, st.integers(1, 3), st.booleans())
def test_lookup_or_unknown_is_encode_in_the_smallest_type(text: str, min_count: int, documents: bool) -> None:
    vocabulary = vocabulary_of(text * min_count, min_count, documents=documents)
    ids = vocabulary.lookup_or_unknown(code_points(text))
    assert ids.tolist() == vocabulary.encode(text).tolist()
    assert ids.dtype == (np.uint8 if vocabulary.size <= 256 else np.uint16)


def test_a_vocabulary_without_characters_is_rejected() -> None:
    with pytest.raises(CharlstmError, match="--min-count"):
        vocabulary_of("abc", min_count=2)


def test_the_error_for_an_unknown_character_names_it_and_the_options() -> None:
    with pytest.raises(UsageError, match=r"U\+00E9 LATIN SMALL LETTER E WITH ACUTE.*--unknown skip"):
        vocabulary_of("abc").encode("cabé", "error")


def test_unknown_characters_are_skipped_or_replaced_on_request() -> None:
    vocabulary = vocabulary_of("ab ")
    assert vocabulary.decode(vocabulary.encode("aéb", "skip")) == b"ab"
    assert vocabulary.decode(vocabulary.encode("aéb", "replace")) == b"a b"


def test_a_control_character_is_named_and_not_printed() -> None:
    assert name_character("\x1b") == "U+001B"
    assert "'x'" in name_character("x")


def test_count_bytes_is_the_length_of_the_utf_8_text() -> None:
    vocabulary = vocabulary_of("aé漢")
    assert vocabulary.count_bytes(vocabulary.encode("aé漢漢")) == len("aé漢漢".encode())


@pytest.mark.parametrize("characters", ["ba", "aa", "", "\ud800", 7])
def test_a_malformed_vocabulary_is_rejected(characters: object) -> None:
    with pytest.raises(ValueError):
        vocabulary_from_dict({"unit": "char", "characters": characters, "unknown": False})


def test_encoded_ids_have_the_type_that_numpy_indexes_with() -> None:
    assert vocabulary_of("ab").encode("ab").dtype == np.int64
