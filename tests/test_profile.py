"""The statistics of a corpus, and the options recommended for it."""

from __future__ import annotations

import lzma
from bisect import bisect
from collections import Counter
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlstm.data import baselines, lines, profile, scripts
from charlstm.data.baselines import context_entropy
from charlstm.data.profile import Group, Profile
from charlstm.data.recommend import Recommendation, recommend
from charlstm.errors import CharlstmError
from charlstm.vocabulary import code_points
from tests.support.texts import ENGLISH, ROOT

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("aab\n\n\r"), min_size=1, max_size=80)


def shipped(name: str) -> str:
    return (ROOT / "corpora" / name).read_text("utf-8")


def recommended(text: str) -> Recommendation:
    return recommend(Profile.from_chunks([text]))


@settings(max_examples=40, deadline=None)
@given(texts)
def test_the_statistics_match_their_definitions(text: str) -> None:
    found, counts = Profile.from_chunks([text]).to_dict(), Counter(text)
    assert found["characters"] == len(text)
    assert found["bytes"] == len(text.encode())
    assert found["distinct_characters"] == len(counts)
    assert found["seen_once"] == sum(n == 1 for n in counts.values())
    assert found["order0_bpc"] == pytest.approx(-sum(n * np.log2(n / len(text)) for n in counts.values()) / len(text))
    assert [(row["character"], row["count"]) for row in found["rarest"]] == sorted(
        counts.items(), key=lambda item: (item[1], item[0])
    )[:10]
    assert found["xz_bpc"] == 8 * len(lzma.compress(text.encode())) / len(text)
    stripped = text.replace("\r", "")
    whole = stripped.removesuffix("\n").split("\n") if stripped else []
    assert found["lines"] == len(whole)
    assert found["longest_line"] == max(map(len, whole), default=0)
    assert found["blank_lines"] == whole.count("")
    full = [line for line in whole if line]
    assert found["lines_compared"] == len(full)
    assert found["duplicate_lines_share"] == (1 - len(set(full)) / len(full) if full else 0)


@settings(max_examples=40, deadline=None)
@given(texts, st.integers(1, 7), st.integers(1, 5))
def test_the_size_of_the_chunks_does_not_change_the_profile(text: str, size: int, step: int) -> None:
    whole = Profile.from_chunks([text]).to_dict()
    with patch.object(profile, "STEP", step):
        assert Profile.from_chunks(text[i : i + size] for i in range(0, len(text), size)).to_dict() == whole


def test_baselines_of_a_long_text_are_measured_on_its_beginning() -> None:
    with (
        patch.object(baselines, "MAX_COUNTED", 100_000),
        patch.object(baselines, "MAX_COMPRESSED", 1001),
        patch.object(lines, "MAX_COMPARED", 50),
    ):
        found = Profile.from_chunks(["é" * 100, ENGLISH, "three\n" * 20]).to_dict()
        same = Profile.from_chunks(["é" * 100 + ENGLISH, "three\n" * 20]).to_dict()
    assert found == same
    assert found["order3_characters"] == 100_000
    assert found["xz_characters"] == 100 + 801
    assert found["xz_bpc"] == 8 * len(lzma.compress(("é" * 100 + ENGLISH[:801]).encode())) / 901
    assert found["lines_compared"] == 50
    assert found["duplicate_lines_share"] == 0
    assert found["characters"] == len(ENGLISH) + 220
    with patch.object(baselines, "MAX_COMPRESSED", 101):
        assert Profile.from_chunks(["é" * 60, "e"]).xz.characters == 50  # never a part of a character


def test_the_profile_of_an_empty_text_is_an_error() -> None:
    with pytest.raises(CharlstmError, match="the corpus is empty"):
        Profile.from_chunks(["", ""])


def test_characters_are_grouped_by_script_and_category() -> None:
    found = Profile.from_chunks(["Привет, мир! 三国 ok\u0301 42\n"])
    assert found.scripts == [Group("Common", 7, 10), Group("Cyrillic", 7, 9), Group("Han", 2, 2), Group("Latin", 2, 2)]
    assert {group.name: group.count for group in found.categories} == {
        "letters": 13,
        "spaces": 4,
        "punctuation": 2,
        "numbers": 2,
        "marks": 1,
        "control and other": 1,
    }


SCRIPTS = {
    "Latin": "aZßÿœŁ",
    "Greek": "αΩςἀ",
    "Cyrillic": "яЖѣ",
    "Armenian": "աՖ",
    "Georgian": "აჰ",
    "Coptic": "ⲁϣ",
    "Hebrew": "את",
    "Arabic": "ابپ",
    "Ethiopic": "ሀፐ",
    "Devanagari": "अका",
    "Bengali": "অকা",
    "Tamil": "அகா",
    "Thai": "กโๆ",
    "Lao": "ກໂ",
    "Tibetan": "ཀཱ",
    "Myanmar": "ကာ",
    "Khmer": "កា",
    "Mongolian": "ᠠᠡ",
    "Cherokee": "ᎠᏜ",
    "Hangul": "가힣ㄱ",
    "Hiragana": "あん",
    "Katakana": "アンｱ",
    "Bopomofo": "ㄅㄆ",
    "Han": "一龥三々〇𠀀",
    "Yi": "ꀀꀁ",
    "Runic": "ᚠᚢ",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_letter_or_vowel_sign_is_of_the_script_in_its_name(script: str) -> None:
    assert set(scripts.find_scripts(code_points(SCRIPTS[script]))) == {script}


def test_digits_punctuation_symbols_and_accents_are_common() -> None:
    assert set(scripts.find_scripts(code_points("7² .,—。😀\u0301ーʼ\n\u0378"))) == {"Common"}


def test_letters_in_a_special_style_are_of_the_script_they_are_based_on() -> None:
    assert set(scripts.find_scripts(code_points("Ａ𝑥ªⅣKﬁ"))) == {"Latin"}
    assert scripts.find_scripts(code_points("µ")) == ["Greek"]


def test_letters_of_an_unlisted_script_are_other() -> None:
    assert scripts.find_scripts(code_points("\N{OSMANYA LETTER BA}")) == ["Other"]


def markov(length: int, seed: int) -> tuple[str, float]:
    """Return a text from an order-3 Markov source, and the entropy of that source in bits per character."""
    random = np.random.default_rng(seed)
    tables = random.dirichlet(np.full(8, 0.3), size=(8, 8, 8))
    sums = tables.cumsum(-1).tolist()
    drawn = [0, 1, 2]
    for u in random.random(length).tolist():
        drawn.append(min(bisect(sums[drawn[-3]][drawn[-2]][drawn[-1]], u), 7))
    seen = np.array(drawn)
    entropies = -(tables * np.log2(np.maximum(tables, 1e-300))).sum(-1)
    return "".join(map(chr, 97 + seen)), float(entropies[seen[:-3], seen[1:-2], seen[2:-1]].mean())


@pytest.mark.parametrize("length", [8_000, 100_000])
def test_the_order_3_entropy_is_close_to_that_of_a_markov_source(length: int) -> None:
    text, bits = markov(length, seed=length)
    assert context_entropy(code_points(text)) == pytest.approx(bits, rel=0.03)


def test_the_order_3_entropy_depends_little_on_length_and_is_none_for_short_texts() -> None:
    whole = context_entropy(code_points(ENGLISH))
    assert context_entropy(code_points(ENGLISH[:80_000])) == pytest.approx(whole, rel=0.02)
    assert context_entropy(code_points(ENGLISH[:10_000])) is None
    assert context_entropy(code_points(shipped("chinese.txt"))) is None
    assert context_entropy(code_points("abc")) is None
    assert context_entropy(code_points("a" * 10_000)) == pytest.approx(0, abs=0.001)


def test_english_needs_only_a_preset_for_its_size() -> None:
    english = Profile.from_chunks([ENGLISH])
    for times, name in {1: "tiny", 3: "small", 19: "medium", 130: "large"}.items():
        longer = replace(english, counts=english.counts * times)
        assert str(recommend(longer)) == f"--preset {name}"
        assert (ROOT / "configs" / f"{name}.toml").is_file()


def test_chinese_needs_a_wide_embedding_and_a_tied_head() -> None:
    found = recommended(shipped("chinese.txt"))
    assert str(found) == "--preset chinese --head tied"
    assert (ROOT / "configs" / "chinese.toml").is_file()
    assert "1,367 distinct characters" in found.advice[0].why


def test_short_lines_without_repetition_are_a_list() -> None:
    found = recommended(shipped("places.txt"))
    assert str(found) == "--preset names --document line"
    assert (ROOT / "configs" / "names.toml").is_file()
    assert "1,249 items" in found.advice[0].why
    assert str(recommended("".join(f"{n:x}\n" for n in range(100_000)))) == "--preset small --document line"


def test_verse_and_repeated_lines_are_not_a_list() -> None:
    verse = "".join(f"verse {n}\n" + "\n" * (n % 4 == 0) for n in range(2000))
    assert str(recommended(verse)) == "--preset tiny"
    assert str(recommended("yes\nno\n" * 2000)) == "--preset tiny"


def test_a_short_text_is_read_in_one_stream() -> None:
    found = recommended(ENGLISH[:300])
    assert str(found) == "--preset tiny --batch-size 1"
    assert "only 300 characters" in found.advice[1].why


def test_a_text_of_less_than_3_characters_is_too_small() -> None:
    found = recommended("ab")
    assert found.advice == ()
    assert found.too_small == "The text has 2 characters; training needs at least 3."
    assert str(recommended("abc")) == "--preset tiny --batch-size 1 --seq-len 1"


def test_a_list_whose_last_line_could_fill_the_validation_part_is_not_a_list() -> None:
    lines = [f"{n:x}\n" for n in range(40)]
    assert str(recommended("".join(lines))) == "--preset names --document line --batch-size 1"
    assert str(recommended("".join([*lines, "x" * 50, "\n"]))) == "--preset tiny --batch-size 1"


def test_source_code_needs_only_a_preset_for_its_size() -> None:
    code = "".join(path.read_text("utf-8") for path in sorted((ROOT / "charlstm" / "data").glob("*.py")))
    assert str(recommended(code)) == "--preset tiny"


def test_rare_characters_become_unknown_if_that_saves_many_symbols() -> None:
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    found = recommended(ENGLISH + rare)
    assert str(found) == "--preset tiny --min-count 5"
    assert (
        "304 of 374 distinct characters occur fewer than 5 times and make up 0.19% of the text" in found.advice[1].why
    )
    assert str(recommended(ENGLISH * 9 + rare * 2)) == "--preset small --min-count 10"
    assert str(recommended(ENGLISH + rare[:8])) == "--preset tiny"
    assert str(recommended(ENGLISH[:20_000] + rare)) == "--preset tiny"


def test_the_preset_for_many_symbols_keeps_all_characters_if_most_occur_once() -> None:
    assert str(recommended("".join(map(chr, range(0x4E00, 0x4E00 + 2000))))) == (
        "--preset chinese --min-count 1 --head tied --batch-size 1"
    )


def test_undecodable_bytes_in_a_text_are_replaced() -> None:
    assert str(recommended(ENGLISH + "\ufffd")) == "--preset tiny --errors replace"


def test_a_binary_file_is_modelled_as_bytes() -> None:
    picture = np.random.default_rng(0).integers(256, size=20_000).astype(np.uint8).tobytes()
    found = recommended(picture.decode(errors="replace"))
    assert str(found) == "--preset tiny --level byte"
    assert "% of the text are control characters or bytes that cannot be decoded" in found.advice[1].why


def test_a_recommendation_gives_a_reason_for_each_option() -> None:
    found = recommended(shipped("places.txt")).to_dict()
    assert found["options"] == "--preset names --document line"
    assert [row["option"] for row in found["advice"]] == ["--preset names", "--document line"]
    assert all(row["why"].endswith(".") for row in found["advice"])
