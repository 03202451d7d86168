"""The editor of `charlstm write` without its terminal: ghost text, candidates, and what is read again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlstm.config import DataConfig, SamplingConfig
from charlstm.sampling.network import prefill
from charlstm.text_model import TextModel
from charlstm.vocabulary import ByteVocabulary, CharVocabulary
from charlstm.writing.buffer import Position, TextBuffer
from charlstm.writing.continuation import take_character, take_word
from charlstm.writing.infill import KeypressError
from charlstm.writing.reader import MAX_RECENT, SPARSE, Reader
from charlstm.writing.session import Session
from charlstm.writing.window import MAX_READ_BEFORE, READ_BEFORE
from tests.support.models import LETTERS, MODELS, make_chain_model, make_untrained_model
from tests.support.writing import SEED, SHORT, finish, make_session

FORWARD = MODELS[False]
SPACED = make_untrained_model(CharVocabulary("\n" + " abcdefgh"), bidirectional=False)
"""A model that writes words, and one that does not."""

CHAIN = "".join(map(chr, range(0x4E00, 0x4E00 + 12)))
"""The document of `make_chain_model(12)`."""


def sample(text: str, config: SamplingConfig = SHORT) -> str:
    """Return what `charlstm sample` writes after a text."""
    return b"".join(each.text for each in TextModel(FORWARD).stream_fragments(text, config, seed=SEED)).decode()


def count_steps(session: Session) -> list[int]:
    """Return a list that grows with every step of the network that reads the text."""
    steps: list[int] = []
    network = session.reader.network
    original = network.advance

    def advance(ids: np.ndarray, states: list) -> tuple:  # type: ignore[type-arg]
        steps.append(1)
        return original(ids, states)

    network.advance = advance  # type: ignore[method-assign]
    return steps


@pytest.mark.parametrize("options", [{}, {"temperature": 0.3, "top_k": 4}, {"temperature": 0.0}])
def test_ghost_text_is_what_sample_writes(options: dict[str, Any]) -> None:
    config = replace(SHORT, **options)
    session = make_session(FORWARD, "abc\ndef", config=config)
    assert session.ghost == sample("abc\ndef", config)


def test_typing_the_ghost_text_keeps_the_rest_of_it_and_another_character_draws_a_new_one() -> None:
    session = make_session(FORWARD, "abc")
    ghost = session.ghost
    session.type_text(ghost[0])
    assert session.ghost == ghost[1:]
    finish(session)
    assert session.ghost[:19] == ghost[1:] and len(session.ghost) == 20
    other = next(c for c in "abcdefgh" if c != session.ghost[0])
    session.type_text(other)
    finish(session)
    assert session.ghost == sample("abc" + ghost[0] + other)


def test_right_accepts_a_character_and_tab_a_word() -> None:
    session = make_session(SPACED, "a ")
    ghost = session.ghost
    assert session.accept_character()
    assert session.buffer.text == "a " + ghost[0]
    word = take_word(session.ghost)
    assert session.accept_word()
    assert session.buffer.text == "a " + ghost[0] + word


def test_tab_waits_for_the_end_of_the_word() -> None:
    session = make_session(SPACED, "a", config=replace(SHORT, length=200))
    whole = session.ghost
    session.dismiss()
    session.summon()
    while session.reader.find_context(session.place) is None or not session.ghost:
        session.work(0)
    assert len(session.ghost) < 3
    session.accept_word()
    assert session.buffer.text == "a" + take_word(whole)


@pytest.mark.parametrize(
    ("text", "character", "word"),
    [
        ("ing, that", "i", "ing,"),
        (" that is", " ", " that"),
        ("\nNext", "\n", "\n"),
        (".\n\nNext", ".", "."),
        ("  ", " ", "  "),
        ("e\u0301t x", "e\u0301", "e\u0301t"),
        ("👩\u200d💻 x", "👩\u200d💻", "👩\u200d💻"),
        ("", "", ""),
    ],
)
def test_what_is_accepted_is_a_whole_character_or_a_whole_word(text: str, character: str, word: str) -> None:
    assert take_character(text) == character
    assert take_word(text) == word


def test_candidates_begin_with_different_words_and_the_first_is_found_again() -> None:
    session = make_session(SPACED, "abc ")
    seen = [session.ghost]
    for _ in range(4):
        session.choose_next()
        finish(session)
        seen.append(session.ghost)
    assert len({take_word(text) for text in seen}) == 5
    for text in reversed(seen[:-1]):
        assert session.choose_previous()
        assert session.ghost == text
    assert not session.choose_previous()
    session.choose_next()
    assert session.ghost == seen[1]


def test_without_chance_there_is_one_candidate_and_looking_for_another_ends() -> None:
    session = make_session(FORWARD, "abc", config=replace(SHORT, temperature=0.0))
    ghost = session.ghost
    session.choose_next()
    finish(session)
    assert session.ghost == ghost
    assert session.suggestions and not session.suggestions.is_seeking


def test_typing_keeps_the_candidate_that_begins_with_what_was_typed() -> None:
    session = make_session(SPACED, "abc ")
    first = session.ghost
    while session.ghost[0] == first[0]:
        session.choose_next()
        finish(session)
    other = session.ghost
    for _ in range(9):
        session.choose_previous()
    session.type_text(other[0])
    assert session.ghost == other[1:]


def test_moving_hides_ghost_text_except_at_the_end_and_an_edit_shows_it() -> None:
    session = make_session(MODELS[True], "abc\ndef", (0, 1))
    seen = []
    acts: list[Callable[[], None]] = [
        lambda: None,
        lambda: session.type_text("b"),
        lambda: session.move_to(Position(0, 1)),
        session.summon,
        lambda: session.move_to(session.buffer.end),
        session.dismiss,
        lambda: session.type_text("a"),
    ]
    for act in acts:
        act()
        finish(session)
        seen.append(bool(session.ghost))
    assert seen == [False, True, False, True, True, False, True]


def test_a_model_of_one_direction_suggests_nothing_before_other_text() -> None:
    session = make_session(FORWARD, "abc\n\ndef", (0, 3))
    session.type_text("a")
    finish(session)
    assert not session.ghost
    blank = make_session(FORWARD, "abc\n \n", (0, 3))
    blank.type_text("a")
    finish(blank)
    assert blank.ghost


def test_a_bidirectional_model_fills_the_middle_with_what_fits_both_sides() -> None:
    session = make_session(make_chain_model(12), CHAIN[:3] + CHAIN[5:], (0, 3))
    session.summon()
    finish(session)
    assert session.ghost == CHAIN[3:5]
    assert session.accept_character()
    finish(session)
    assert session.ghost == CHAIN[4]


def test_a_key_interrupts_a_filling_which_is_then_computed_from_the_beginning() -> None:
    session = make_session(make_chain_model(12), CHAIN[:2] + CHAIN[4:6], (0, 2))
    session.summon()
    session.work(10)
    calls = iter([False, False, True])
    session.is_interrupted = lambda: next(calls, False)
    infiller = session.infiller
    left, right = session.reader.find_context(session.place), session.reader.find_context(0)
    assert infiller and left and right
    with pytest.raises(KeypressError):
        infiller.fill(session.reader.ids[:2], session.reader.ids[:2], left, right, lambda: True)
    finish(session)
    assert session.ghost


def test_ghost_text_ends_before_a_stop_string_and_at_the_end_of_a_document() -> None:
    whole = sample("abc", replace(SHORT, length=500))
    stop = whole[5:7]
    session = make_session(FORWARD, "abc", stops=[stop], config=replace(SHORT, length=100))
    assert session.ghost == whole[: whole.index(stop)]
    lines = make_untrained_model(CharVocabulary("abcdefgh", documents=True), DataConfig(document="line"), False)
    written = make_session(lines, "abc\nde", config=replace(SHORT, length=500))
    assert 0 < len(written.ghost) < 500
    assert written.ghost == make_session(lines, "de", config=replace(SHORT, length=500)).ghost, (
        "each line is a document of its own"
    )


def test_a_sample_that_ends_at_once_does_not_hide_the_other_candidates() -> None:
    stop = sample("abc")[0]
    session = make_session(FORWARD, "abc", stops=[stop])
    assert session.ghost and not session.ghost.startswith(stop)
    first = session.ghost
    assert session.choose_next()
    finish(session)
    assert session.ghost and take_word(session.ghost) != take_word(first)


def test_a_candidate_that_is_accepted_to_its_end_is_followed_by_new_ones() -> None:
    stop = sample("abc", replace(SHORT, length=500))[5:7]
    session = make_session(FORWARD, "abc", stops=[stop], config=replace(SHORT, length=100))
    while len(session.ghost) > 1:
        session.accept_character()
    session.accept_character()
    finish(session)
    assert session.ghost


def test_a_filling_that_is_accepted_to_its_end_is_followed_by_a_new_one() -> None:
    session = make_session(MODELS[True], "abc\ndef", (0, 1))
    session.summon()
    finish(session)
    filling = session.ghost
    for _ in filling:
        session.accept_character()
    finish(session)
    assert session.ghost


def test_where_every_sample_ends_at_once_there_are_no_candidates_and_summoning_looks_again() -> None:
    session = make_session(make_chain_model(12), CHAIN)
    assert session.suggestions and session.suggestions.is_empty
    looking = [session.is_looking]
    assert not session.choose_next()
    kept = session.suggestions
    session.summon()
    assert session.suggestions is not kept
    looking.append(session.is_looking)
    finish(session)
    assert not session.ghost and looking == [False, True]


def test_characters_that_the_model_does_not_know_are_marked_and_read_as_a_space() -> None:
    session = make_session(SPACED, "ab\u00e9")
    assert session.find_unknown_before() == "\u00e9"
    assert any(first <= 2 < last for first, last in session.find_marked(0, 0, 3))
    assert session.reader.ids.tolist() == SPACED.vocabulary.encode("ab ").tolist()
    assert make_session(SPACED, "ab\u00e9", unknown="skip").place == 2


def test_characters_with_a_probability_below_one_percent_are_marked() -> None:
    session = make_session(make_chain_model(12), CHAIN[:3] + CHAIN[6:9] + CHAIN[2])
    assert session.find_marked(0, 0, 7) == [(3, 4), (6, 7)]
    assert session.find_marked(0, 4, 7) == [(2, 3)]


@pytest.mark.parametrize("normalize", ["none", "nfc"])
def test_a_model_of_bytes_or_of_composed_characters_marks_whole_characters(normalize: str) -> None:
    text = "e\u0301 漢a"
    if normalize == "nfc":
        model = make_untrained_model(CharVocabulary(" a\u00e9\u6f22"), DataConfig(normalize="nfc"), False)
        assert make_session(model, text).place == 4
    else:
        model = make_untrained_model(ByteVocabulary(), DataConfig(level="byte"), False)
        assert make_session(model, text).place == len(text.encode())
    for first, last in make_session(model, text).find_marked(0, 0, len(text)):
        assert first != 1 and last != 1, "a base and its mark are marked together"


def test_ghost_text_of_a_model_of_bytes_has_whole_characters_only() -> None:
    model = make_untrained_model(ByteVocabulary(), DataConfig(level="byte"), False)
    for text in ("a", "b", "漢"):
        make_session(model, text, config=replace(SHORT, length=50)).ghost.encode()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["insert", "remove", "move"])), max_size=12))
def test_what_was_read_is_the_same_after_any_edits(edits: list[tuple[int, str]]) -> None:
    session = make_session(FORWARD, "abcdefgh\nabcdefgh")
    for number, kind in edits:
        line = number % len(session.buffer.lines)
        session.move_to(Position(line, number % (len(session.buffer.lines[line]) + 1)))
        if kind == "insert":
            session.type_text("abc\n"[number % 4])
        elif kind == "remove":
            session.remove_before()
        finish(session)
    before = session.buffer.get_text(Position(0, 0), session.buffer.cursor)
    ids = np.concatenate([[LETTERS.bos], LETTERS.encode(before)])
    head_input, states = prefill(TextModel(FORWARD).network, ids)
    context = session.reader.find_context(session.place)
    assert context is not None
    assert np.array_equal(context.head_input, head_input)
    for found, expected in zip(context.states, states, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_backspace_and_left_read_nothing_again() -> None:
    session = make_session(FORWARD, "abcdefgh" * 30)
    session.dismiss()
    finish(session)
    steps = count_steps(session)
    for _ in range(100):
        session.move_to(session.buffer.find_previous(session.buffer.cursor))
        finish(session)
    assert not steps
    session.remove_before()
    session.dismiss()
    while session.is_reading:
        session.work(0)
    assert not steps


def test_memory_and_the_way_back_are_bounded() -> None:
    reader = Reader(TextModel(FORWARD).network, LETTERS.bos)
    ids = LETTERS.encode("abcdefgh" * 400)
    reader.replace_text(ids)
    for _ in reader.read_to(len(ids)):
        pass
    assert len(reader.recent) <= MAX_RECENT
    assert len(reader.sparse) == len(ids) // SPARSE + 1
    assert sum(1 for _ in reader.read_to(99)) == 99 % SPARSE
    assert reader.find_context(99) is not None


def test_in_a_long_text_only_what_is_near_is_read() -> None:
    text = "\n".join(["abcdefgh"] * 200_000)
    session = make_session(FORWARD, "a")
    session = Session(TextBuffer(text), session.drawing, session.encoder, None)
    assert READ_BEFORE <= len(session.window.before) < 2 * READ_BEFORE
    session.move_to(Position(100_000, 4))
    assert READ_BEFORE <= len(session.window.before) < 2 * READ_BEFORE
    for _ in range(20):
        session.type_text("a" * 1000, typed=False)
        assert len(session.window.before) <= MAX_READ_BEFORE
    giant = Session(TextBuffer("abcdefgh" * 500_000), session.drawing, session.encoder, None)
    assert len(giant.window.before) <= 2 * READ_BEFORE
    giant.move_to(Position(0, 2_000_000))
    assert len(giant.window.before) <= 2 * READ_BEFORE and len(giant.window.after) <= 2 * READ_BEFORE
