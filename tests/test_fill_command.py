"""`charlstm fill`: output, exit status and messages, and properties of the fillings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import charlstm as package
from charlstm.config import DataConfig
from charlstm.infilling.candidates import resample
from charlstm.infilling.context import initial_context
from charlstm.infilling.filler import (
    MAX_GROUP,
    MIN_APART,
    SCORED_CONTEXT,
    Filler,
    Filling,
    GapGroup,
    best_pairs,
    group_gaps,
)
from charlstm.infilling.ranking import score_alongside
from charlstm.infilling.template import Template
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel
from charlstm.vocabulary import ByteVocabulary, CharVocabulary, Ids
from tests.support.command_line import assert_fails, charlstm, run_process
from tests.support.models import LETTERS, MODELS, make_untrained_model
from tests.support.texts import SMALL

SEED = ("--seed", 1)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_piped_text_may_begin_with_a_byte_order_mark(bidirectional_run: Path, encoding: str) -> None:
    filled = charlstm("fill", "-m", bidirectional_run, *SEED, "the f_x and the dog")
    assert filled.code == 0
    data = "the f_x and the dog\r\n".encode(encoding)
    assert charlstm("fill", "-m", bidirectional_run, *SEED, stdin=data).out == filled.out


def proposed(file: ModelFile, template: Template, n: int, seed: int = 1) -> list[Filling]:
    filler = Filler(file, seed)
    return filler.fill(template, filler.encode(template), n)


def objects(*arguments: object, stdin: bytes | None = None) -> list[dict[str, object]]:
    result = charlstm("fill", *arguments, *SEED, "--json", stdin=stdin)
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.text.splitlines()]


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("the fox and the ___ sat on the mat", "the fox and the dog sat on the mat"),
        ("the f__ and the d__ s_t on the mat", "the fox and the dog sat on the mat"),
        ("___ fox and the dog sat on the m__", "the fox and the dog sat on the mat"),
    ],
)
def test_a_memorized_line_is_filled_in_exactly(bidirectional_run: Path, text: str, filled: str) -> None:
    result = charlstm("fill", "-m", bidirectional_run, text, *SEED)
    assert result.text == filled + "\n"
    assert "gibbs" in result.err


def test_any_fills_a_gap_with_text_of_the_right_length(bidirectional_run: Path) -> None:
    text = charlstm(
        "fill", "-m", bidirectional_run, "the fox and the * on the mat", "--gap", "*", "--any", 12, *SEED
    ).text
    assert text == "the fox and the dog sat on the mat\n"
    for found in objects("-m", bidirectional_run, "the fox and _ mat", "--any", 3, "-n", 9):
        assert 1 <= len(found["fills"][0]) <= 3  # type: ignore[index]


def test_a_unidirectional_model_fills_by_candidates(run: Path) -> None:
    found = objects("-m", run, "the m_n had a h_nd", "-n", 3)
    assert {entry["method"] for entry in found} == {"candidates"}
    assert all(str(entry["text"])[4] == "m" for entry in found)
    assert "candidates" in charlstm("fill", "-m", run, "the m_n", *SEED).err


def test_fillings_are_distinct_and_sorted_best_first(bidirectional_run: Path) -> None:
    found = objects("-m", bidirectional_run, "the ___ and the dog", "-n", 5)
    scores = [float(str(entry["log_probability_nats"])) for entry in found]
    assert scores == sorted(scores, reverse=True)
    assert len({str(entry["text"]) for entry in found}) == len(found) == 5
    assert [entry["index"] for entry in found] == [0, 1, 2, 3, 4]
    plain = charlstm("fill", "-m", bidirectional_run, "the ___ and the dog", "-n", 5, *SEED)
    assert plain.text.splitlines() == [entry["text"] for entry in found]
    assert [line for line in plain.err.splitlines() if line.endswith("nats")] == [
        f"{score:.2f} nats" for score in scores
    ]


def test_the_printed_seed_reproduces_the_fillings(bidirectional_run: Path) -> None:
    drawn = charlstm("fill", "-m", bidirectional_run, "the ___ and ___ dog")
    seed = drawn.err.split("--seed ")[1].split()[0]
    assert charlstm("fill", "-m", bidirectional_run, "the ___ and ___ dog", "--seed", seed).out == drawn.out


def test_fill_reads_the_text_from_a_pipe(bidirectional_run: Path) -> None:
    for arguments in ((), ("-",)):
        result = charlstm("fill", "-m", bidirectional_run, *arguments, *SEED, stdin=b"the fox and the d_g sat\n")
        assert result.out == b"the fox and the dog sat\n"


def test_with_color_filled_characters_are_bold(bidirectional_run: Path) -> None:
    result = charlstm("fill", "-m", bidirectional_run, "the f_x and", "--color", "always", *SEED)
    assert result.text == "the f\x1b[1mo\x1b[0mx and\n"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("no gap here",), ("no gap", "'_'", "--gap")),
        (("",), ("no text to fill",)),
        (("_" * 1001,), ("1,001 characters", "1,000")),
        (("a_b", "--gap", "__"), ("--gap", "one character", "'__'")),
        (("the _z_x",), ("'z' (U+007A LATIN SMALL LETTER Z)", "offset 5", "--unknown")),
        (("the _", "-n", "0"), ("-n",)),
        (("the _", "--any", "0"), ("--any",)),
    ],
)
def test_bad_input_gets_one_sentence(
    bidirectional_run: Path, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    assert_fails(charlstm("fill", "-m", bidirectional_run, *arguments), 2, *parts)


def test_the_name_of_a_file_in_place_of_a_text_gets_the_command_that_fills_the_file() -> None:
    Path("my text.txt").write_text("to be or ___ to be")
    assert_fails(charlstm("fill", "my text.txt"), 2, "is a file; to fill it: charlstm fill < 'my text.txt'")


def test_no_text_at_all_gets_one_sentence(bidirectional_run: Path) -> None:
    assert_fails(charlstm("fill", "-m", bidirectional_run), 2, "no text to fill", "pipe")


@pytest.mark.parametrize("unknown", ["skip", "replace"])
def test_fill_keeps_unknown_characters_in_place(bidirectional_run: Path, unknown: str) -> None:
    text = charlstm("fill", "-m", bidirectional_run, "the f_x \N{SNOWMAN} and", "--unknown", unknown, *SEED).text
    assert text[:5] == "the f"
    assert text[6:] == "x \N{SNOWMAN} and\n"


def test_fill_works_without_torch(bidirectional_run: Path) -> None:
    result = run_process("fill", "-m", bidirectional_run, "the f_x", *SEED)
    code = f"""
import sys
sys.modules["torch"] = None
from charlstm.cli.app import main
sys.exit(main(["fill", "-m", {str(bidirectional_run)!r}, "the f_x", "--seed", "1"]))
"""
    import subprocess
    import sys

    without = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert without.returncode == 0
    assert without.stdout == result.out


def test_a_model_of_lines_fills_each_line_on_its_own() -> None:
    Path("names.txt").write_text("anna\nberta\nclara\n" * 150)
    trained = charlstm(
        "train", "names.txt", "-o", "names", *SMALL, "--bidirectional", "--document", "line", "--epochs", 8
    )
    assert trained.code == 0, trained.err
    result = charlstm("fill", "-m", "names", *SEED, stdin=b"a__a\nanna\n\nb_rta\ncla_a\n")
    assert result.text == "anna\nanna\n\nberta\nclara\n"
    assert charlstm("fill", "-m", "names", *SEED, stdin=b"a__a\r\nb_rta\r\n").text == "anna\nberta\n"
    entries = objects("-m", "names", "-n", 2, stdin=b"a__a\nanna\nb__ta\n")
    assert [entry["line"] for entry in entries] == [1, 1, 2, 3, 3]
    unknown = charlstm("fill", "-m", "names", stdin=b"a__a\nbz_rta\n")
    assert_fails(unknown, 2, "line 2", "'z'", "offset 1")
    assert unknown.out == b""


texts = st.text("abc_", min_size=1, max_size=24).filter(lambda text: "_" in text)


@given(texts, st.booleans(), st.integers(0, 5))
def test_fill_never_changes_a_fixed_character(text: str, both: bool, seed: int) -> None:
    template = Template.parse(text, "_")
    for proposal in proposed(MODELS[both], template, 3, seed):
        filled = template.render(proposal.fills).decode()
        assert len(filled) == len(text)
        assert all(mine == theirs for mine, theirs in zip(filled, text, strict=True) if theirs != "_")


@given(texts, st.booleans(), st.integers(1, 4))
def test_an_open_gap_gets_1_to_n_characters(text: str, both: bool, most: int) -> None:
    template = Template.parse(text, "_", most)
    for proposal in proposed(MODELS[both], template, 3):
        assert len(proposal.fills) == len(template.gaps)
        assert all(1 <= len(fill) <= most for fill in proposal.fills)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("most", [None, 3])
def test_the_log_probability_of_a_filling_covers_the_gaps_and_their_context(both: bool, most: int | None) -> None:
    before, after = "abcdefghab" * 6, "hgfedcba" * 7
    template = Template.parse(f"{before}_c__{after}", "_", most)
    file = MODELS[both]
    for proposal in proposed(file, template, 4, 3):
        filled = template.render(proposal.fills).decode()
        end = len(filled) - len(after)
        expected = TextModel(file).score(filled)[len(before) : end + SCORED_CONTEXT].sum(dtype=float)
        if both:
            backward = TextModel(file, "backward").score(filled)
            expected = (expected + backward[len(before) - SCORED_CONTEXT : end].sum(dtype=float)) / 2
        assert proposal.log_probability == pytest.approx(expected, abs=1e-3)


def test_gaps_far_apart_are_filled_independently() -> None:
    far = "a" * MIN_APART
    both = proposed(MODELS[True], Template.parse(f"b_c{far}d__e", "_"), 4)
    alone = proposed(MODELS[True], Template.parse(f"b_c{far}d__e", "_"), 1)
    assert all(len(proposal.fills) == 2 for proposal in both)
    assert len({proposal.fills for proposal in both}) == 4
    assert [proposal.log_probability for proposal in both] == sorted(
        (proposal.log_probability for proposal in both), reverse=True
    )
    assert alone[0].fills[0] == both[0].fills[0]
    fixed = [np.zeros(n, int) for n in (3, MIN_APART, 4, MIN_APART - 1, 0)]
    assert list(group_gaps(fixed, (1, 2, 3, 1))) == [(0, 1), (1, 4)]
    assert list(group_gaps(fixed, (1, MAX_GROUP, 3, 1))) == [(0, 1), (1, 2), (2, 4)], (
        "no more at once than there is room for"
    )


def test_fill_never_writes_a_special_symbol() -> None:
    file = make_untrained_model(
        CharVocabulary("ab", with_unknown=True, documents=True), DataConfig(document="line", min_count=2)
    )
    for head in ("head.bias", "joint.bias"):
        file.weights[head][2:] = 50
    for proposal in proposed(file, Template.parse("a____b__", "_"), 20):
        assert set(b"".join(proposal.fills)) <= set(b"ab")


def test_a_byte_model_fills_bytes() -> None:
    found = proposed(make_untrained_model(ByteVocabulary()), Template.parse("\N{SNOWMAN}__", "_"), 1)
    assert len(found[0].fills[0]) == 2


@given(st.lists(st.floats(-50, 50), min_size=4, max_size=12), st.integers(0, 9))
def test_resampling_draws_each_row_in_proportion_to_its_weight(weights: list[float], seed: int) -> None:
    weight = np.array(weights)
    problem = np.arange(len(weight)) % 2
    chosen = resample(problem, weight, np.random.default_rng(seed))
    assert np.array_equal(problem[chosen], problem)
    for which in (0, 1):
        own = np.flatnonzero(problem == which)
        share = np.exp(weight[own] - weight[own].max())
        expected = share / share.sum() * len(own)
        counts = np.array([(chosen == row).sum() for row in own])
        assert np.all(np.abs(counts - expected) < 1 + 1e-9)


def test_the_best_filling_so_far_is_the_context_of_the_next_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    read, fill = [], Filler.fill_group

    def spied(self: Filler, stretch: GapGroup, n: int, number: int, on_step: Callable[[], None]) -> object:
        read.append(LETTERS.decode(stretch.before).decode())
        return fill(self, stretch, n, number, on_step)

    monkeypatch.setattr(Filler, "fill_group", spied)
    far = "ab" * MIN_APART
    (best,) = proposed(MODELS[True], Template.parse(f"c_d{far}e__f{far}_", "_"), 1)
    first, second, _ = (fill.decode() for fill in best.fills)
    assert read == ["\nc", f"\nc{first}d{far}e", f"\nc{first}d{far}e{second}f{far}"]


def test_an_interrupted_ranking_ends_early_on_both_networks() -> None:
    network, read = Filler(MODELS[True], 1).predictors.forward, []

    def columns() -> Iterator[tuple[Ids, None]]:
        for k in range(2000):
            read.append(k)
            sleep(0.001)
            yield np.zeros(1, int), None

    with pytest.raises(KeyboardInterrupt), score_alongside(network, initial_context(network, 1), columns()):
        raise KeyboardInterrupt
    assert len(read) < 2000


@pytest.mark.parametrize(("marker", "most"), [("", None), ("ab", None), ("_", 0), ("_", 1001)])
def test_python_rejects_an_invalid_gap_marker_or_length(bidirectional_run: Path, marker: str, most: int | None) -> None:
    with pytest.raises(package.UsageError):
        package.load(bidirectional_run).fill("the f_x", gap=marker, max_gap=most)


@given(
    st.lists(st.integers(-9, 0), min_size=1, max_size=8),
    st.lists(st.integers(-9, 0), min_size=1, max_size=8),
    st.integers(1, 9),
)
def test_best_pairs_equals_sorting_all_pairs(ones: list[int], others: list[int], n: int) -> None:
    left, right = (
        [Filling((b"%d" % k,), float(score)) for k, score in enumerate(sorted(scores, reverse=True))]
        for scores in (ones, others)
    )
    found = [proposal.log_probability for proposal in best_pairs(left, right, n)]
    assert found == sorted((a + b for a in ones for b in others), reverse=True)[:n]


def test_python_fill_equals_the_command(bidirectional_run: Path) -> None:
    found = package.load(bidirectional_run).fill("the ___ and the dog", 3, seed=1)
    entries = objects("-m", bidirectional_run, "the ___ and the dog", "-n", 3)
    assert [text for text, _ in found] == [entry["text"] for entry in entries]
    assert package.load(bidirectional_run).fill("the f*", gap="*", max_gap=5, seed=1)[0][0].startswith("the f")
