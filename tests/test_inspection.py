"""Traces of states and gates, detectors, and the ranking of units."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from charlstm.architecture import weight_shapes
from charlstm.cells import CELLS
from charlstm.config import Config, ModelConfig
from charlstm.errors import UsageError
from charlstm.inspection.comparison import rank_rows
from charlstm.inspection.detectors import Detector, detect
from charlstm.inspection.intervention import ablate, categorize
from charlstm.inspection.ranking import Finding, rank_units
from charlstm.inspection.text import ReadText
from charlstm.inspection.trace import Series, Trace, trace
from charlstm.sampling.units import Unit
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel
from charlstm.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary
from tests.support.planted import COLUMN, HIDDEN, QUOTE, planted_model, planted_text
from tests.support.texts import ENGLISH

TEXT = planted_text(6000, 1)


def random_model(vocabulary: Vocabulary, **options: Any) -> ModelFile:
    config = Config(model=replace(ModelConfig(hidden=12, embedding=5), **options))
    random = np.random.default_rng(0)
    shapes = weight_shapes(config.model, vocabulary.size)
    weights = {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    return ModelFile(config, vocabulary, weights)


def find(findings: list[Finding], name: str) -> Finding:
    return next(each for each in findings if each.detector.name == name)


def values(detectors: list[Detector], name: str) -> list[int]:
    return [int(value) for value in next(each for each in detectors if each.name == name).values]


def test_a_trace_has_the_gates_of_the_lstm_of_torch() -> None:
    vocabulary = CharVocabulary("\n abc")
    file = random_model(vocabulary, layers=2)
    ids = vocabulary.encode("abc cab\nbac a" * 5)
    weights = {name: torch.from_numpy(weight).double() for name, weight in file.weights.items()}
    found = trace(file, ids)
    x = weights["embedding.weight"][torch.from_numpy(np.concatenate([[vocabulary.bos], ids]))]
    for layer in range(2):
        core = torch.nn.LSTM(x.shape[1], 12).double()
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        core.load_state_dict({f"{name}_l0": weights[f"layers.{layer}.{name}"] for name in names})
        y, (h, c) = core(x)
        h_before = torch.cat([torch.zeros(1, 12).double(), y[:-1]])
        w_ih, w_hh, b_ih, b_hh = (weights[f"layers.{layer}.{name}"] for name in names)
        i, f, g, o = (x @ w_ih.T + h_before @ w_hh.T + b_ih + b_hh).chunk(4, 1)
        gates = {"input": i.sigmoid(), "forget": f.sigmoid(), "candidate": g.tanh(), "output": o.sigmoid(), "hidden": y}
        for name, expected in gates.items():
            got = found.series[Series("forward", layer, name)]
            np.testing.assert_allclose(got, expected[1:].detach(), atol=1e-5)
        np.testing.assert_allclose(found.series[Series("forward", layer, "cell")][-1], c[0].detach(), atol=1e-5)
        np.testing.assert_allclose(found.series[Series("forward", layer, "hidden")][-1], h[0].detach(), atol=1e-5)
        x = y


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", [{}, {"layers": 2, "between": "highway"}, {"bidirectional": True, "head": "all"}])
def test_a_trace_has_the_log_probabilities_of_score(cell: str, options: dict[str, Any]) -> None:
    vocabulary = CharVocabulary("\n abc", documents=True)
    file = random_model(vocabulary, cell=cell, **options)
    ids = vocabulary.encode("abc cab\nbac a" * 3)
    found = trace(file, ids)
    np.testing.assert_allclose(
        found.predictions["forward"].log_probabilities, TextModel(file).score("abc cab\nbac a" * 3), atol=1e-5
    )
    if file.config.model.bidirectional:
        backward = TextModel(file, "backward").score("abc cab\nbac a" * 3)
        np.testing.assert_allclose(found.predictions["backward"].log_probabilities, backward, atol=1e-5)
    state = {name for name in found.quantities if name in ("cell", "hidden", "output")}
    assert state >= set(CELLS[cell].state)


def test_the_state_in_a_trace_is_reset_at_the_end_of_a_document() -> None:
    vocabulary = CharVocabulary("abc", documents=True)
    file, end = random_model(vocabulary), vocabulary.size - 1
    first, second = (trace(file, vocabulary.encode(text)) for text in ("abcab", "bca"))
    both = trace(file, np.concatenate([vocabulary.encode("abcab"), [end], vocabulary.encode("bca")]))
    for name, array in both.series.items():
        np.testing.assert_allclose(array[:5], first.series[name], atol=1e-6)
        np.testing.assert_allclose(array[6:], second.series[name], atol=1e-6)


def test_predictions_of_a_trace_are_those_after_each_character() -> None:
    vocabulary = CharVocabulary("\n abc")
    found = trace(random_model(vocabulary), vocabulary.encode("abcabc")).predictions["forward"]
    p = found.probabilities
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    assert (np.diff(p) <= 0).all()
    np.testing.assert_allclose(found.entropies, -(p * np.log(p)).sum(1), atol=1e-5)
    for t in range(5):
        place = list(found.likeliest[t]).index(vocabulary.encode("abcabc")[t + 1])
        assert math.log(p[t, place]) == pytest.approx(float(found.log_probabilities[t + 1]), abs=1e-5)


def test_model_trace_gives_arrays_by_name() -> None:
    vocabulary = CharVocabulary("\n abc")
    arrays = TextModel(random_model(vocabulary, layers=2)).trace("abc cab")
    assert {"ids", "log_probabilities", "layers.0.cell", "layers.1.forget"} <= set(arrays)
    assert all(len(array) == 7 for array in arrays.values())
    assert arrays["layers.1.hidden"].shape == (7, 12)


def test_a_character_of_several_bytes_has_the_state_after_the_last_and_the_log_probability_of_all() -> None:
    vocabulary = ByteVocabulary()
    file = random_model(vocabulary)
    ids = vocabulary.encode("aé€b".encode())
    whole, text = trace(file, ids), ReadText.from_ids(ids, vocabulary)
    selected = text.select(whole)
    assert text.characters == "aé€b"
    hidden = Series("forward", 0, "hidden")
    np.testing.assert_array_equal(selected.series[hidden], whole.series[hidden][[0, 2, 5, 6]])
    log_p = whole.predictions["forward"].log_probabilities
    sums = [log_p[0], log_p[1:3].sum(), log_p[3:6].sum(), log_p[6]]
    np.testing.assert_allclose(selected.predictions["forward"].log_probabilities, sums, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("column", "ab\ncde\n", [1, 2, 0, 1, 2, 3, 0]),
        ("previous line length", "ab\ncde\nf", [0, 0, 2, 2, 2, 2, 3, 3]),
        ("indentation", "  a b\n\tc", [1, 2, 2, 2, 2, 0, 1, 1]),
        ("position in word", "ab, c1", [1, 2, 0, 0, 1, 2]),
        ("position in sentence", "A b. C", [1, 2, 3, 4, 0, 1]),
        ("position in sentence", "あ。い", [1, 0, 1]),
        ("run of capitals", "aABb", [0, 1, 2, 0]),
        ("run of spaces", "a  b", [0, 1, 2, 0]),
        ("depth of parentheses", "(a(b)c))(", [1, 1, 2, 2, 1, 1, 0, 0, 1]),
        ("depth of parentheses", "(" + 3000 * "a" + ")", [0] * 3002),
        ("depth of angle brackets", "a<b\n<c>", [0, 0, 0, 0, 1, 1, 0]),
        ("inside straight quotes", 'a"b"c"', [0, 1, 1, 0, 0, 0]),
        ("inside straight quotes", 'a" b "c" d', [0, 0, 0, 0, 0, 1, 1, 0, 0, 0]),
        ("inside straight quotes", '("a" + " b")', [0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0]),
        ("inside straight quotes", '"a b "c d"', [0] * 5 + [1] * 4 + [0]),
        ("inside curly quotes", "“a”b", [1, 1, 0, 0]),
        ("inside guillemets", "«a»b", [1, 1, 0, 0]),
        ("inside CJK quotes", "「あ」b", [1, 1, 0, 0]),
        ("inside comment", "a # b\nc", [0, 0, 1, 1, 1, 0, 0]),
        ("inside comment", "x://b // c", [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]),
        ("start of word", "ab c1 2", [1, 0, 0, 1, 0, 0, 1]),
        ("digit", "a1", [0, 1]),
        ("newline next", "a\nb", [1, 0, 0]),
        ("class of previous character", "a1 .\0", [0, 1, 2, 3, 4]),
    ],
)
def test_a_detector_describes_the_text_up_to_each_character(name: str, text: str, expected: list[int]) -> None:
    assert values(detect(text), name) == expected


def test_units_are_named_by_layer_and_number() -> None:
    config = ModelConfig(layers=2, hidden=40, bidirectional=True)
    assert [str(Unit.parse(name, config)) for name in ("1.37", "backward.0.3")] == ["1.37", "backward.0.3"]
    for wrong, message in (("1", "is not a unit"), ("2.0", "layers 0 to 1 with units 0 to 39"), ("0.40", "units 0 to")):
        with pytest.raises(UsageError, match=message):
            Unit.parse(wrong, config)
    with pytest.raises(UsageError, match="forward only"):
        Unit.parse("backward.0.1", ModelConfig())


def test_hand_built_units_are_found_wherever_they_are() -> None:
    """Unit 17 adds a constant per character and is cleared at a newline; unit 42 is 1 between quotes."""
    ids = planted_model(TEXT).vocabulary.encode(TEXT[:3000])
    detectors = [each for each in detect(TEXT[:3000]) if each.name in ("column", "inside straight quotes")]
    for seed in range(20):
        permutation = np.random.default_rng(seed).permutation(HIDDEN)
        findings, _ = rank_units(trace(planted_model(TEXT, permutation), ids), detectors, shifts=5)
        column, quote = find(findings, "column"), find(findings, "inside straight quotes")
        assert (permutation[column.best.unit.number], column.best.quantity) == (COLUMN, "cell")
        assert permutation[quote.best.unit.number] == QUOTE
        assert column.best.score >= 0.999 and quote.best.score >= 0.999
        assert column.best.score > column.noise and quote.best.score > quote.noise


def test_detectors_of_one_text_are_not_found_in_the_states_over_another() -> None:
    vocabulary = CharVocabulary("".join(sorted(set(ENGLISH))))
    file, random = random_model(vocabulary, hidden=16), np.random.default_rng(7)
    middle = len(ENGLISH) // 2
    above = ranked = 0
    for _ in range(10):
        first, second = random.integers(0, middle - 4000, 2)
        text, other = ENGLISH[first:][:4000], ENGLISH[middle + second :][:4000]
        findings, _ = rank_units(trace(file, vocabulary.encode(text)), detect(other))
        above += sum(each.is_above_noise for each in findings)
        ranked += len(findings)
    assert ranked >= 80
    assert above <= ranked / 50  # one in a hundred is expected


def test_what_is_too_rare_is_not_ranked() -> None:
    ids = planted_model(TEXT).vocabulary.encode(TEXT)
    findings, rare = rank_units(trace(planted_model(TEXT), ids), detect(TEXT), shifts=5)
    assert {"inside braces", "inside guillemets", "digit", "run of capitals"} <= {each.name for each in rare}
    assert len(findings) + len(rare) == len(detect(TEXT))


def test_a_unit_that_only_echoes_a_character_is_shown_next_to_that_character() -> None:
    ids = planted_model(TEXT).vocabulary.encode(TEXT)
    findings, _ = rank_units(trace(planted_model(TEXT), ids), detect(TEXT), shifts=5)
    assert find(findings, "start of word").character_score > 0.5
    assert find(findings, "inside straight quotes").character_score < 0.65 < find(findings, "column").best.score
    assert find(findings, "previous character").character_score == 1


def test_equal_values_have_their_mean_rank() -> None:
    rows = np.array([[3, 1, 1, 2], [5, 5, 5, 5]], np.float32)
    np.testing.assert_array_equal(rank_rows(rows), [[1.5, -1, -1, 0.5], [0, 0, 0, 0]])


def test_a_trace_of_another_quantity_is_an_error() -> None:
    vocabulary = CharVocabulary("abc")
    found: Trace = trace(random_model(vocabulary, cell="gru"), vocabulary.encode("abc"))
    assert found.of_unit(Unit(0, 3), "update").shape == (3,)
    with pytest.raises(UsageError, match="has no 'forget'"):
        found.of_unit(Unit(0, 3), "forget")


@pytest.mark.parametrize("cell", CELLS)
def test_a_clamped_unit_has_its_value_after_each_step_and_the_others_follow_it(cell: str) -> None:
    vocabulary = CharVocabulary("\n abc")
    model = TextModel(random_model(vocabulary, cell=cell, layers=2))
    clamped = model.clamp({"1.3": 0.5})
    states = plain = clamped.network.initial_state(2)
    for t in range(4):
        ids = vocabulary.encode("abca bca")[t : t + 2]
        _, states = clamped.network.step(ids, states)
        _, plain = model.network.step(ids, plain)
        np.testing.assert_array_equal(states[1][-1][:, 3], [0.5, 0.5])
        np.testing.assert_array_equal(states[0][0], plain[0][0])
    assert np.abs(states[1][0] - plain[1][0])[:, 3].min() > 1e-4
    if cell not in ("lstm-simple",):  # its units do not read each other
        assert np.abs(states[1][0] - plain[1][0])[:, :3].max() > 1e-6


def test_a_signed_clamp_counts_standard_deviations_over_a_text() -> None:
    vocabulary = CharVocabulary("\n abc")
    file, text = random_model(vocabulary), "abc cab\n" * 5
    values = trace(file, vocabulary.encode(text)).of_unit(Unit(0, 3), "cell")
    (clamp,) = TextModel(file).clamp({"0.3": "-1.5", "0.4": 2}, text).network.networks[0].clamps
    assert clamp.units.tolist() == [3, 4]
    np.testing.assert_allclose(clamp.values, [values.mean() - 1.5 * values.std(), 2], atol=1e-6)


def test_the_loss_with_a_fixed_unit_is_that_of_the_clamped_model() -> None:
    text = planted_text(400, 3)
    file = planted_model(TEXT)
    ids = file.vocabulary.encode(text)
    recorded = trace(file, ids)
    everywhere = {"everywhere": np.ones(len(ids), bool)}
    (found,) = ablate(file, recorded, [Unit(0, COLUMN)], everywhere)
    mean = float(recorded.of_unit(Unit(0, COLUMN), "cell").mean())
    plain, clamped = TextModel(file).score(text), TextModel(file).clamp({f"0.{COLUMN}": mean})
    half, total = len(ids) // 2, 0.0
    parts = (recorded.series[Series("forward", 0, part)] for part in ("hidden", "cell"))
    after = [tuple(values[half - 2 : half - 1] for values in parts)]
    for t in range(half, len(ids)):
        logits, after = clamped.network.step(ids[t - 1 : t], after)
        total += float(logits[0, ids[t]] - np.log(np.exp(logits[0]).sum()))
    expected = (plain[half:].sum() - total) / (len(ids) - half)
    assert found.effects["everywhere"].change == pytest.approx(expected, abs=1e-4)


def test_every_character_is_in_one_category() -> None:
    text = 'He said "yes" (or\n"no") <b>\n'
    found = categorize(text)
    assert np.sum(list(found.values()), 0).tolist() == [1] * len(text)
    assert np.flatnonzero(found["closing quotes"]).tolist() == [12, 21]
    assert np.flatnonzero(found["closing brackets"]).tolist() == [22, 26]
    assert np.flatnonzero(found["line ends"]).tolist() == [17, 27]


def test_a_class_that_occurs_in_one_half_only_is_no_obstacle() -> None:
    text = "ab ba\n" * 100 + "12 34.\n" * 100
    vocabulary = CharVocabulary("".join(sorted(set(text))))
    for each in (text, text[::-1]):
        findings, _ = rank_units(trace(random_model(vocabulary), vocabulary.encode(each)), detect(each), shifts=3)
        assert np.isfinite([finding.best.score for finding in findings]).all()
