"""`charlstm inspect`: output, exit status and messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from charlstm.architecture import weight_shapes
from charlstm.cli.actions import inspect as action
from charlstm.cli.heatmap import digit
from charlstm.config import Config, ModelConfig
from charlstm.inspection import patterns
from charlstm.inspection.detectors import detect
from charlstm.inspection.palette import PALETTES, mix_palette
from charlstm.inspection.trace import Series, directions, trace
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import ByteVocabulary, CharVocabulary
from tests.support.command_line import assert_fails, charlstm
from tests.support.models import make_untrained_model
from tests.support.modules import loaded_modules_after
from tests.support.planted import COLUMN, HIDDEN, QUOTE, planted_model, planted_text

TEXT = planted_text(3000, 1)

LSTM_GATES = ["input", "forget", "output"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with units built by hand."""
    path = tmp_path_factory.mktemp("planted") / "model.safetensors"
    planted_model(TEXT).save(path)
    return path


def save(file: ModelFile) -> Path:
    file.save(Path("model.safetensors"))
    return Path("model.safetensors")


def inspect_json(*arguments: object, stdin: bytes) -> dict[str, Any]:
    result = charlstm("inspect", *arguments, "--json", stdin=stdin)
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.text)
    return found


def test_the_table_names_the_unit_that_follows_each_detector(planted: Path) -> None:
    result = charlstm("inspect", "-m", planted, "-", stdin=TEXT.encode())
    assert result.code == 0, result.err
    rows = {line.split("  ")[0]: line.split() for line in result.text.splitlines()}
    assert rows["column"][1:5] == [f"0.{COLUMN}", "cell", "r", "1.000"]
    assert f"0.{QUOTE}" in rows["inside straight quotes"]
    assert "inside braces" not in result.err
    assert "\x1b" not in result.text


def test_json_has_both_halves_the_noise_and_the_next_best_units(planted: Path) -> None:
    found = inspect_json("-m", planted, "-", stdin=TEXT.encode())
    assert found["characters"] == len(TEXT)
    column = next(each for each in found["findings"] if each["detector"] == "column")
    assert (column["unit"], column["quantity"], column["measure"], column["sign"]) == (f"0.{COLUMN}", "cell", "r", 1)
    assert column["score"] > 0.999 and column["first_half_score"] > 0.999 > column["noise"]
    assert len(column["others"]) == 4 and column["above_noise"]
    assert "inside braces" in found["not_ranked"]


def test_a_regular_expression_is_one_more_detector(planted: Path) -> None:
    found = inspect_json("-m", planted, "-", "--detect", '"[^"]*"', stdin=TEXT.encode())
    assert found["findings"][0]["detector"] == '/"[^"]*"/'
    assert found["findings"][0]["unit"] == f"0.{QUOTE}"


def test_without_color_a_unit_is_a_digit_under_each_character(planted: Path) -> None:
    result = charlstm("inspect", "-m", planted, "-", "--unit", f"0.{QUOTE}", stdin=b'ate "on it" in\nan')
    assert result.text.splitlines() == ['ate "on it" in↵', "555599999955555", "an", "55"]
    assert "cell of unit 0.42" in result.err


def test_with_color_the_background_of_a_character_is_the_level_of_the_unit(planted: Path) -> None:
    environ = {"COLORTERM": "truecolor"}
    arguments = ("inspect", "-m", planted, "-", "--color", "always", "--unit", f"0.{QUOTE}")
    result = charlstm(*arguments, stdin=b'at "on"', environ=environ)
    high, none = (";".join(map(str, mix_palette(PALETTES["light"], level))) for level in (1, 0))
    assert f"\x1b[48;2;{none};38;2;0;0;0mat " in result.text
    assert f'\x1b[48;2;{high};38;2;0;0;0m"on' in result.text
    assert result.text.endswith("\x1b[0m\n")
    few = charlstm(*arguments, stdin=b'at "on"')
    assert "48;5;166" in few.text and "48;2" not in few.text


def test_levels_are_ten_digits() -> None:
    assert [digit(level) for level in (-1, -0.9, 0, 0.99, 1)] == [0, 0, 5, 9, 9]


@pytest.mark.parametrize(
    ("text", "shown", "digits"),
    [
        ("a中b", "a中b", 4),
        ("ae\N{COMBINING ACUTE ACCENT}b", "ae\N{COMBINING ACUTE ACCENT}b", 3),
        ("a\N{THUMBS UP SIGN}b", "a\N{THUMBS UP SIGN}b", 4),
        ("a\tb", "a   b", 5),
        ("a\x1bb", "a\\x1bb", 6),
        ("aאב", "\u202daאב\u202c", 3),
    ],
)
def test_digits_stay_under_their_characters(text: str, shown: str, digits: int) -> None:
    vocabulary = CharVocabulary("".join(sorted({"\n", *text})))
    path = save(make_untrained_model(vocabulary, bidirectional=False))
    result = charlstm("inspect", "-m", path, "-", "--unit", "0.0", stdin=text.encode())
    line, row = result.text.splitlines()
    assert line == shown
    assert len(row) == digits
    assert len(row.replace(" ", "")) == sum(1 for c in text if c != "\N{COMBINING ACUTE ACCENT}")


def test_the_characters_that_are_most_likely_next_are_below(planted: Path) -> None:
    result = charlstm("inspect", "-m", planted, "-", "--unit", "0.1", "--predictions", 2, stdin=b"the\nan")
    lines = result.text.splitlines()
    assert len(lines) == 8
    expected = planted_model(TEXT)
    found = trace(expected, expected.vocabulary.encode("the\nan")).predictions["forward"]
    shown = {"\n": "↵", " ": "␣"}
    names = [symbol.decode() for symbol in expected.vocabulary.symbols]
    first = "".join(shown.get(names[i], names[i]) for i in found.likeliest[:4, 0])
    assert lines[2] == first.rstrip()


def test_gates_are_a_table_of_their_own(planted: Path) -> None:
    result = charlstm("inspect", "-m", planted, "-", "--gates", stdin=TEXT.encode())
    assert [line.split()[0] for line in result.text.splitlines()[1:]] == [
        f"layers.0.{gate}" for gate in ("input", "forget", "output")
    ]
    found = inspect_json("-m", planted, "-", "--gates", stdin=TEXT.encode())["gates"]
    forget = next(each for each in found if each["series"] == "layers.0.forget")
    assert {COLUMN, QUOTE} <= set(forget["units_nearly_always_open"])
    assert forget["longest_time_constant"] > 20


@pytest.mark.parametrize(
    ("cell", "names"),
    [("gru", ["reset", "update"]), ("rnn", ["hidden"]), ("jordan", ["hidden"]), ("mlstm", LSTM_GATES)],
)
def test_the_table_of_gates_fits_the_cell(cell: str, names: list[str]) -> None:
    vocabulary = CharVocabulary("\n abc")
    config = Config(model=ModelConfig(cell=cell, hidden=8, embedding=4, layers=2))
    shapes = weight_shapes(config.model, vocabulary.size)
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    path = save(ModelFile(config, vocabulary, weights))
    rows = inspect_json("-m", path, "-", "--gates", stdin=b"abc ab\nc" * 9)["gates"]
    assert [row["series"] for row in rows] == [f"layers.{layer}.{gate}" for layer in range(2) for gate in names]
    assert ["time_constants" in row for row in rows] == [gate in ("forget", "update") for gate in 2 * names]


def test_saturated_gates_are_drawn(planted: Path) -> None:
    result = charlstm("inspect", "-m", planted, "-", "--gates", "--plot", "gates.svg", stdin=TEXT.encode())
    assert result.code == 0, result.err
    tree = ElementTree.parse("gates.svg")
    circles = [each for each in tree.iter() if each.tag.endswith("circle") and each.get("r") == "3"]
    assert len(circles) == 3 * HIDDEN
    forget = circles[HIDDEN + QUOTE]  # open except at quotes
    assert float(forget.get("cy", "nan")) < 15 and float(forget.get("cx", "nan")) < 15


def test_fixing_a_unit_changes_the_loss_where_it_matters(planted: Path) -> None:
    found = inspect_json("-m", planted, "-", "--ablate", "--unit", f"0.{QUOTE}", stdin=TEXT.encode())
    (ablation,) = found["ablations"]
    assert ablation["unit"] == f"0.{QUOTE}" and ablation["random_units"] == 50
    effects = ablation["effects"]
    assert {"line ends", "closing quotes", "inside quotes", "elsewhere"} <= set(effects)
    assert abs(effects["inside quotes"]["change_nats"]) > 0.001
    again = inspect_json("-m", planted, "-", "--ablate", "--unit", f"0.{QUOTE}", stdin=TEXT.encode())
    assert again["ablations"] == found["ablations"]
    text = charlstm("inspect", "-m", planted, "-", "--ablate", stdin=TEXT.encode()).text
    assert "closing quotes" in text and "of 50 random units" in text


@pytest.mark.parametrize("both", [True, False])
def test_models_of_bytes_and_of_both_directions_are_inspected(both: bool) -> None:
    path = save(make_untrained_model(ByteVocabulary(documents=True), bidirectional=both))
    text = ("grün (ja) " * 30 + "\n") * 8
    found = inspect_json("-m", path, "-", "--ablate", stdin=text.encode())
    assert found["characters"] == len(text)
    units = {each["unit"] for each in found["findings"]}
    assert any(unit.startswith("backward.") for unit in units) == both
    assert len(found["ablations"]) == len(units)
    values = inspect_json("-m", path, "-", "--unit", "backward.1.3" if both else "1.3", stdin=text.encode())
    assert len(values["values"]) == len(values["content"]) == len(text)


def test_the_default_text_is_the_validation_part_of_the_run(run: Path) -> None:
    result = charlstm("inspect", "-m", run)
    assert result.code == 0, result.err
    assert charlstm("inspect", "-m", run, "--part", "val").text == result.text
    assert charlstm("inspect", "-m", run, "-l", 500, "--json").text != ""


def test_inspect_runs_without_torch(planted: Path) -> None:
    start = "from charlstm.cli.app import main; import os, sys; out = os.dup(1); os.dup2(2, 1)"
    Path("text.txt").write_text(TEXT)
    command = ["inspect", "-m", str(planted), "text.txt", "--ablate", "--detect", "e"]
    assert "torch" not in loaded_modules_after(
        f"{start}; assert main({command}) == 0; sys.stdout.flush(); os.dup2(out, 1)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--unit", "1.0"), "there is no unit 1.0: the model has layer 0 with units 0 to 63"),
        (("--unit", "x"), "'x' is not a unit"),
        (("--unit", "0.1", "--quantity", "reset"), "has no 'reset'"),
        (("--quantity", "cell"), "--quantity has no effect without --unit"),
        (("--predictions", "3"), "--predictions has no effect without --unit"),
        (("--detect", "("), "is not a regular expression"),
        (("--gates", "--ablate"), "--ablate fixes the units of the table"),
        (("--gates", "--unit", "0.1"), "cannot be combined"),
        (("--gates", "--detect", "a"), "--detect has no effect with --gates"),
        (("--plot", "x.svg"), "--plot has no effect without --gates"),
        (("--like", "5"), "must be two places"),
        (("--like", "90000:90001"), "is not a span of a text"),
        (("--states", "x.csv"), "must end in .npy or .jsonl"),
        (("--states", "x.npy", "--quantity", "reset"), "has no 'reset'"),
        (("--pool", "mean"), "--pool has no effect"),
        (("--labels", "missing.txt"), "cannot read the labels in missing.txt"),
        (("--part", "val"), "give --part or a FILE"),
        (("-l", "0"), "-l"),
    ],
)
def test_wrong_usage_gets_one_sentence(planted: Path, arguments: tuple[str, ...], message: str) -> None:
    assert_fails(charlstm("inspect", "-m", planted, "-", *arguments, stdin=TEXT.encode()), 2, message)


def test_an_expression_that_takes_exponential_time_is_stopped(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MAX_SECONDS", 0.5)
    result = charlstm("inspect", "-m", planted, "-", "--detect", "(a|aa)+$", stdin=TEXT.encode() + b"a" * 60 + b"t")
    assert_fails(result, 2, "still being searched")


def test_an_empty_text_and_one_of_unknown_characters_get_one_sentence(planted: Path) -> None:
    assert_fails(charlstm("inspect", "-m", planted, "-", stdin=b""), 1, "empty")
    assert_fails(charlstm("inspect", "-m", planted, "-", stdin="日本".encode()), 2, "never seen")
    assert_fails(charlstm("inspect", "-m", planted, "-", "--unknown", "skip", stdin="日本".encode()), 1, "")


def test_a_text_in_which_nothing_varies_gets_one_sentence(planted: Path) -> None:
    assert_fails(charlstm("inspect", "-m", planted, "-", stdin=b"the"), 2, "a text of 3 characters")
    once = charlstm("inspect", "-m", planted, "-", stdin=(TEXT[:1000].replace('"', "") + '"' + TEXT[:1000]).encode())
    assert "too rare in this text to rank: " in once.err


def test_a_text_too_long_for_memory_is_not_begun(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action, "memory_size", lambda: 2**20)
    assert_fails(charlstm("inspect", "-m", planted, "-", stdin=TEXT.encode()), 2, "-l N, at most")


def test_values_in_json_are_those_of_the_trace(planted: Path) -> None:
    found = inspect_json("-m", planted, "-", "--unit", f"0.{COLUMN}", stdin=b"to the\nin")
    np.testing.assert_allclose(found["values"], np.array([1, 2, 3, 4, 5, 6, 0, 1, 2]) / 80, atol=1e-3)


def test_places_like_a_span_have_the_same_units_on(planted: Path) -> None:
    start = TEXT.index('"')
    end = TEXT.index('"', start + 1)
    found = inspect_json("-m", planted, "-", "--like", f"{start}:{end}", stdin=TEXT.encode())
    assert {"unit": f"0.{QUOTE}", "sign": 1} in found["units"]
    assert found["spans"][0] == {"start": start, "units": len(found["units"]), "content": TEXT[start:end]}
    assert 2 <= len(found["spans"]) <= 11
    quoted = np.cumsum([character == '"' for character in TEXT]) % 2
    best = found["spans"][1]["start"]
    assert quoted[best : best + end - start].mean() > 0.9
    text = charlstm("inspect", "-m", planted, "-", "--like", f"{start}:{end}", stdin=TEXT.encode())
    assert text.text.splitlines()[1].split()[0] == f"{start}:{end}"


@pytest.mark.parametrize("both", [True, False])
def test_states_are_written_line_by_line(both: bool) -> None:
    vocabulary = CharVocabulary("\n abc")
    file = make_untrained_model(vocabulary, bidirectional=both)
    path, text = save(file), "abc\n\nca b\na"
    recorded = trace(file, vocabulary.encode(text))
    for pool in ("last", "mean"):
        for name in ("states.npy", "states.jsonl"):
            options = ("--states", name, "--pool", pool, "--quantity", "cell")
            assert charlstm("inspect", "-m", path, "-", *options, stdin=text.encode()).code == 0
        records = [json.loads(line) for line in Path("states.jsonl").read_text().splitlines()]
        assert [record["text"] for record in records] == ["abc", "", "ca b", "a"]
        states = np.load("states.npy")
        np.testing.assert_allclose([record["state"] for record in records], states, atol=1e-6)
        parts = []
        for direction in directions(file.config.model):
            for layer in range(2):
                values = recorded.series[Series(direction, layer, "cell")][5:9]  # of the third line
                last = values[0 if direction == "backward" else -1]
                parts.append(values.mean(0) if pool == "mean" else last)
        np.testing.assert_allclose(states[2], np.concatenate(parts), atol=1e-6)
    piped = charlstm("inspect", "-m", path, "-", "--states", "-", stdin=text.encode())
    assert [json.loads(line)["line"] for line in piped.text.splitlines()] == [1, 2, 3, 4]


def test_labels_of_lines_are_predicted_from_the_state_and_from_one_unit(planted: Path) -> None:
    text = planted_text(12_000, 4)
    quoted = next(each for each in detect(text) if each.name == "inside straight quotes").values
    ends = [place for place, character in enumerate(text) if character == "\n"] + [len(text)]
    labels = ["open" if quoted[end - 1] else "closed" for end in ends]
    Path("labels.txt").write_text("\n".join(labels) + "\n")
    found = inspect_json("-m", planted, "-", "--labels", "labels.txt", "--quantity", "cell", stdin=text.encode())
    accuracy = {probe["features"]: probe["accuracy"] for probe in found["probes"]}
    assert accuracy["the state"] >= 0.95 and accuracy[f"unit 0.{QUOTE}"] >= 0.95
    assert accuracy["how often each character occurs"] < 0.9 and accuracy["the most frequent label"] < 0.9
    assert found["held_out_lines"] == pytest.approx(len(labels) / 5, abs=1)
    shown = charlstm("inspect", "-m", planted, "-", "--labels", "labels.txt", stdin=text.encode()).text
    assert shown.splitlines()[0].split() == ["predicted", "from", "accuracy", "features", "used"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [("a\nb\n", "the labels are 2"), ("a\n" * 46, "same label"), ("a\n" * 44 + "b\nb\n", "2 with the label 'b'")],
)
def test_labels_that_cannot_be_probed_get_one_sentence(planted: Path, labels: str, message: str) -> None:
    Path("labels.txt").write_text(labels)
    text = "\n".join(["the in"] * 46)
    assert_fails(charlstm("inspect", "-m", planted, "-", "--labels", "labels.txt", stdin=text.encode()), 2, message)
