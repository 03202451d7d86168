"""What a corpus is made of, and what to train it with."""

from __future__ import annotations

import lzma
import unicodedata
from bisect import bisect
from collections import Counter
from dataclasses import replace
from functools import cache
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
from tests.conftest import ENGLISH, ROOT

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("aab\n\n\r"), min_size=1, max_size=80)


def shipped(name: str) -> str:
    return (ROOT / "corpora" / name).read_text("utf-8")


def suggested(text: str) -> Recommendation:
    return recommend(Profile.from_chunks([text]))


@settings(max_examples=40)
@given(texts)
def test_the_figures_are_those_of_the_plain_definitions(text: str) -> None:
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


@settings(max_examples=40)
@given(texts, st.integers(1, 7), st.integers(1, 5))
def test_where_the_text_is_cut_into_chunks_makes_no_difference(text: str, size: int, step: int) -> None:
    whole = Profile.from_chunks([text]).to_dict()
    with patch.object(profile, "STEP", step):
        assert Profile.from_chunks(text[i : i + size] for i in range(0, len(text), size)).to_dict() == whole


def test_of_a_long_text_only_the_beginning_is_looked_at_closely_and_the_profile_says_so() -> None:
    with (
        patch.object(baselines, "MAX_COUNTED", 100_000),
        patch.object(baselines, "MAX_COMPRESSED", 1001),
        patch.object(lines, "COMPARED", 50),
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
        assert Profile.from_chunks(["é" * 60, "e"]).xz.characters == 50  # never half a character


def test_no_text_is_said() -> None:
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


SHARED = {"GREEK NUMERAL SIGN", "ARABIC TATWEEL", "KATAKANA-HIRAGANA PROLONGED SOUND MARK"}


@cache
def letters() -> dict[int, str]:
    """The letters that this Python knows, and their names."""
    return {p: unicodedata.name(chr(p), "") for p in range(0x110000) if unicodedata.category(chr(p))[0] == "L"}


@pytest.mark.parametrize("script", sorted(scripts.RANGES.keys() - {scripts.COMMON}))
def test_letters_are_of_the_script_that_their_name_says(script: str) -> None:
    beginning = "CJK UNIFIED IDEOGRAPH" if script == "Han" else script.upper()
    points = [p for p, name in letters().items() if name.startswith(beginning) and name not in SHARED]
    assert len(points) > 20
    assert set(scripts.find_scripts(np.array(points))) == {script}


def test_digits_and_accents_are_of_no_script_and_rare_scripts_are_other() -> None:
    assert scripts.find_scripts(code_points("7 \u0301😀ー𝑥ʼ")) == ["Common"] * 7
    assert scripts.find_scripts(code_points("\N{OSMANYA LETTER BA}")) == ["Other"]


def markov(length: int, seed: int) -> tuple[str, float]:
    """A text each of whose characters depends on the three before it, and its entropy in bits per character."""
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
def test_the_order_3_entropy_is_near_that_of_the_source(length: int) -> None:
    text, bits = markov(length, seed=length)
    assert context_entropy(code_points(text)) == pytest.approx(bits, rel=0.03)


def test_the_order_3_entropy_of_a_part_is_near_that_of_the_whole_and_of_too_little_it_is_not_told() -> None:
    whole = context_entropy(code_points(ENGLISH))
    assert context_entropy(code_points(ENGLISH[:80_000])) == pytest.approx(whole, rel=0.02)
    assert context_entropy(code_points(ENGLISH[:10_000])) is None
    assert context_entropy(code_points(shipped("chinese.txt"))) is None
    assert context_entropy(code_points("abc")) is None
    assert context_entropy(code_points("a" * 10_000)) == pytest.approx(0, abs=0.001)


def test_english_wants_nothing_special() -> None:
    english = Profile.from_chunks([ENGLISH])
    for times, name in {1: "tiny", 3: "small", 19: "medium", 130: "large"}.items():
        longer = replace(english, counts=english.counts * times)
        assert str(recommend(longer)) == f"--preset {name}"
        assert (ROOT / "configs" / f"{name}.toml").is_file()


def test_chinese_has_many_symbols() -> None:
    found = suggested(shipped("chinese.txt"))
    assert str(found) == "--preset chinese --head tied"
    assert (ROOT / "configs" / "chinese.toml").is_file()
    assert "1,367 distinct characters" in found.preset.why


def test_names_are_a_list() -> None:
    found = suggested(shipped("places.txt"))
    assert str(found) == "--preset names --document line"
    assert (ROOT / "configs" / "names.toml").is_file()
    assert "1,249 items" in found.preset.why
    assert str(suggested("".join(f"{n:x}\n" for n in range(100_000)))) == "--preset small --document line"


def test_verse_and_what_repeats_itself_are_no_list() -> None:
    verse = "".join(f"verse {n}\n" + "\n" * (n % 4 == 0) for n in range(2000))
    assert str(suggested(verse)) == "--preset tiny"
    assert str(suggested("yes\nno\n" * 2000)) == "--preset tiny"


def test_a_text_of_300_bytes_is_short() -> None:
    found = suggested(ENGLISH[:300])
    assert str(found) == "--preset tiny --batch-size 1"
    assert "300 characters are few" in found.settings[0].why


def test_source_code_is_a_text_like_others() -> None:
    code = "".join(path.read_text("utf-8") for path in sorted((ROOT / "charlstm" / "data").glob("*.py")))
    assert str(suggested(code)) == "--preset tiny"


def test_rare_characters_are_folded_where_that_saves_much() -> None:
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    found = suggested(ENGLISH + rare)
    assert str(found) == "--preset tiny --min-count 5"
    assert "304 of its 374 distinct characters are seen fewer than 5 times, 0.19% of the text" in found.settings[0].why
    assert str(suggested(ENGLISH * 9 + rare * 2)) == "--preset small --min-count 10"
    assert str(suggested(ENGLISH + rare[:8])) == "--preset tiny"
    assert str(suggested(ENGLISH[:20_000] + rare)) == "--preset tiny"


def test_what_is_no_text_is_modelled_as_bytes() -> None:
    picture = np.random.default_rng(0).integers(256, size=20_000).astype(np.uint8).tobytes()
    found = suggested(picture.decode(errors="replace"))
    assert str(found) == "--preset tiny --level byte"
    assert "% of it are control characters or bytes that are no text" in found.settings[0].why


def test_a_suggestion_says_why_for_each_option() -> None:
    found = suggested(shipped("places.txt")).to_dict()
    assert found["options"] == "--preset names --document line"
    assert [row["option"] for row in found["advice"]] == ["--preset names", "--document line"]
    assert all(row["why"].endswith(".") for row in found["advice"])
