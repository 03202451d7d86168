"""`charlstm sample --direction backward`: what leads up to a prompt, in reading order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import charlstm as package
from charlstm.config import SamplingConfig
from charlstm.evaluation.evaluate import score_characters
from charlstm.model.loading import load_language_model
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel
from charlstm.vocabulary import CharVocabulary
from tests.support.command_line import assert_fails, charlstm
from tests.support.models import make_untrained_model
from tests.support.modules import loaded_modules_after
from tests.support.texts import SMALL, WORDS

pytestmark = pytest.mark.slow

BACKWARD = ("--direction", "backward", "--seed", 1)


def test_a_backward_sample_leads_up_to_the_prompt(bidirectional_run: Path) -> None:
    result = charlstm("sample", "-m", bidirectional_run, *BACKWARD, "-p", "on the mat", "-l", 12, "-t", 0)
    assert result.out == b"the dog sat on the mat\n"
    piped = charlstm("sample", "-m", bidirectional_run, *BACKWARD, "-l", 12, "-t", 0, stdin=b"on the mat\n")
    assert piped.out == result.out


def test_no_echo_and_raw_apply_to_backward_samples(bidirectional_run: Path) -> None:
    arguments = ("sample", "-m", bidirectional_run, *BACKWARD, "-p", "on the mat", "-l", 8, "-t", 0)
    assert charlstm(*arguments, "--no-echo").out == b"dog sat \n"
    assert charlstm(*arguments, "--raw").out == b"dog sat on the mat"


def test_a_backward_sample_begins_after_its_stop_string(bidirectional_run: Path) -> None:
    arguments = ("sample", "-m", bidirectional_run, *BACKWARD, "-p", "on the mat", "-t", 0)
    assert charlstm(*arguments, "-l", 40, "--stop", "and ").out == b"the dog sat on the mat\n"
    assert charlstm(*arguments, "-l", 0, "--stop", "and ").out == b"the dog sat on the mat\n"
    assert charlstm(*arguments, "-l", 40, "--stop", "\n").out == b"the fox and the dog sat on the mat\n"


def test_backward_samples_come_in_order_and_independent_of_their_number(bidirectional_run: Path) -> None:
    arguments = ("sample", "-m", bidirectional_run, *BACKWARD, "-p", "mat", "-l", 20, "-t", 1.5)
    three = charlstm(*arguments, "-n", 3).text.splitlines()
    assert all(sample.endswith("mat") for sample in three)
    assert charlstm(*arguments).text.splitlines()[0] == three[0]


def test_the_json_record_has_the_direction(bidirectional_run: Path) -> None:
    arguments = ("sample", "-m", bidirectional_run, "-p", "mat", "-l", 7, "-t", 0, "--json", "--seed", 1)
    forward, backward = (json.loads(charlstm(*arguments, "--direction", way).text) for way in ("forward", "backward"))
    assert (forward["direction"], backward["direction"]) == ("forward", "backward")
    assert backward["text"] == "on the "
    assert backward["prompt"] == "mat"
    assert backward["stop_reason"] == "length"


def test_forward_samples_of_a_bidirectional_model_equal_those_of_its_forward_half(bidirectional_run: Path) -> None:
    ModelFile.load(bidirectional_run / "best.safetensors").select_direction("forward").save(Path("half.safetensors"))
    arguments = ("-l", 50, "--seed", 4, "-p", "the f")
    whole, half = (charlstm("sample", "-m", model, *arguments).out for model in (bidirectional_run, "half.safetensors"))
    assert whole == half


def test_wrong_use_of_direction_gets_one_sentence(run: Path, bidirectional_run: Path) -> None:
    assert_fails(charlstm("sample", "-m", run, *BACKWARD), 2, "--direction backward", "--bidirectional")
    assert_fails(charlstm("sample", "-m", bidirectional_run, *BACKWARD, "-l", 0), 2, "-l 0", "--stop")
    assert_fails(charlstm("sample", "-m", bidirectional_run, "--direction", "up"), 2, "--direction")


def test_a_backward_model_adapts_to_a_text_from_its_end(bidirectional_run: Path) -> None:
    Path("other.txt").write_text("the mat and the fox sat on the dog\n" * 60)
    arguments = ("sample", "-m", bidirectional_run, *BACKWARD, "-l", 11, "-p", "dog", "-t", 0)
    assert charlstm(*arguments).out == b"ox and the dog\n"
    adapted = charlstm(*arguments, "--adapt", "other.txt", "--adapt-rate", 0.02)
    assert adapted.out == b"sat on the dog\n", adapted.err


def test_novelty_of_a_backward_sample_uses_reading_order(bidirectional_run: Path) -> None:
    arguments = ("sample", "-m", bidirectional_run, *BACKWARD, "-p", "mat", "-l", 30, "-t", 0, "--novelty", "--json")
    assert json.loads(charlstm(*arguments).text)["longest_run_characters"] == 30


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bidirectional model whose documents are the lines of a text."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "names.txt").write_text("anna\nberta\nclara\n" * 150)
    options = ("--bidirectional", "--document", "line", "--epochs", 8)
    trained = charlstm("train", folder / "names.txt", "-o", folder / "m", *SMALL, *options)
    assert trained.code == 0, trained.err
    return folder / "m"


def test_a_backward_sample_begins_at_the_start_of_the_document(names: Path) -> None:
    assert charlstm("sample", "-m", names, *BACKWARD, "-p", "ara", "-t", 0).out == b"clara\n"
    lines = charlstm("sample", "-m", names, *BACKWARD, "--json", "-n", 6, stdin=b"").text.splitlines()
    whole = [json.loads(line) for line in lines]
    assert {one["stop_reason"] for one in whole} == {"document"}
    assert {one["text"] for one in whole} & {"anna", "berta", "clara"}


def test_a_backward_byte_model_writes_whole_characters() -> None:
    letters = "\n\N{SNOWMAN}\N{LATIN SMALL LETTER E WITH ACUTE}\N{CJK UNIFIED IDEOGRAPH-4E16}a"
    file = make_untrained_model(CharVocabulary("".join(sorted(letters))))
    backward = TextModel(file, "backward")
    text = "".join(backward.generate("a", SamplingConfig(length=60), seed=1))
    assert len(text) == 60
    assert set(text) <= set(letters)
    stopped = "".join(backward.generate("a", SamplingConfig(length=60), seed=1, stop=["\N{SNOWMAN}"]))
    assert stopped == text.rpartition("\N{SNOWMAN}")[2]


def test_backward_scores_equal_those_of_the_reversed_text(bidirectional_run: Path) -> None:
    model, text = package.load(bidirectional_run, "backward"), "the dog and the fox\n"
    ids = model.vocabulary.encode(text)
    backward_lm = load_language_model(model.file.select_direction("backward"))
    expected = score_characters(backward_lm, ids[::-1].copy(), model.vocabulary.bos).forward.log_probability
    np.testing.assert_allclose(model.score(text), expected[::-1], atol=1e-4)  # two engines, both in float32
    with pytest.raises(package.UsageError, match="direction"):
        TextModel(
            ModelFile.load(bidirectional_run / "best.safetensors").select_direction("forward")
        ).file.select_direction("backward")


def test_a_missing_direction_is_rejected_before_the_corpus_is_read(run: Path) -> None:
    file = ModelFile.load(run / "best.safetensors")
    moved = replace(file.config, data=replace(file.config.data, corpus=("gone.txt",)))
    replace(file, config=moved).save(Path("moved.safetensors"))
    assert_fails(charlstm("sample", "-m", "moved.safetensors", *BACKWARD, "--novelty"), 2, "--direction backward")
    assert_fails(charlstm("sample", "-m", "moved.safetensors", "--seed", 1, "--novelty"), 1, "gone.txt")


def test_a_backward_sample_does_not_depend_on_the_number_of_samples(bidirectional_run: Path) -> None:
    arguments = ("sample", "-m", bidirectional_run, *BACKWARD, "-p", "mat", "-l", 12, "-t", 1.5, "--json")
    few, many = (charlstm(*arguments, "-n", n).text.splitlines() for n in (3, 70))  # 70 are made in two turns
    assert [json.loads(line)["index"] for line in many] == list(range(70))
    assert many[:3] == few
    assert len({json.loads(line)["text"] for line in many}) > 1


def test_backward_samples_of_different_lengths_stay_in_order(bidirectional_run: Path) -> None:
    arguments = (
        "sample",
        "-m",
        bidirectional_run,
        *BACKWARD,
        "-p",
        "mat",
        "-l",
        60,
        "-t",
        1.5,
        "--stop",
        "a",
        "--no-echo",
    )
    lines = [json.loads(line) for line in charlstm(*arguments, "-n", 12, "--json").text.splitlines()]
    assert len({len(line["text"]) for line in lines}) > 1
    assert charlstm(*arguments, "-n", 12).text == "".join(line["text"] + "\n" for line in lines)
    assert not any("a" in line["text"] for line in lines)


def test_the_stop_string_nearest_the_prompt_ends_a_backward_sample(bidirectional_run: Path) -> None:
    arguments = ("sample", "-m", bidirectional_run, *BACKWARD, "-p", "mat", "-t", 0, "-l", 0)
    assert charlstm(*arguments, "--stop", "fox ", "--stop", "dog ").out == b"sat on the mat\n"
    assert charlstm(*arguments, "--stop", "god", "--stop", "fox ").out == b"and the dog sat on the mat\n"


def test_a_backward_byte_model_keeps_the_bytes_of_a_character_in_order() -> None:
    line = "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n\N{RIGHTWARDS ARROW}blau\n"
    Path("colours.txt").write_text(line * 300, "utf-8")
    options = ("--bidirectional", "--level", "byte", "--epochs", 6, "--set", "training.look_ahead=8")
    assert charlstm("train", "colours.txt", "-o", "m", *SMALL, *options).code == 0
    arguments = ("sample", "-m", "m", *BACKWARD, "-p", "blau", "-t", 0)
    assert charlstm(*arguments, "-l", 8).out == (line.rstrip("\n") + "\n").encode()
    assert charlstm(*arguments, "-l", 2, "--raw").out == "\N{RIGHTWARDS ARROW}blau".encode()[1:]
    stopped = charlstm(*arguments, "-l", 0, "--stop", "\N{LATIN SMALL LETTER U WITH DIAERESIS}")
    assert stopped.out == "n\N{RIGHTWARDS ARROW}blau\n".encode()


def test_a_document_scored_backward_equals_its_reversal_scored_forward(names: Path) -> None:
    model = package.load(names, "backward")
    backward_lm, reversed_ids = (
        load_language_model(model.file.select_direction("backward")),
        model.vocabulary.encode("clara")[::-1],
    )
    expected = score_characters(backward_lm, reversed_ids, model.vocabulary.bos).forward.log_probability
    np.testing.assert_allclose(model.score("clara").sum(), expected.sum(), atol=1e-4)  # as above


def test_python_generate_equals_the_command(bidirectional_run: Path) -> None:
    model = package.load(bidirectional_run, "backward")
    text = "".join(model.generate("mat", SamplingConfig(length=40, temperature=1.5), seed=1))
    command = charlstm(
        "sample", "-m", bidirectional_run, *BACKWARD, "-p", "mat", "-l", 40, "-t", 1.5, "--no-echo", "--raw"
    )
    assert command.text == text


def test_a_backward_sample_does_not_import_torch(bidirectional_run: Path) -> None:
    arguments = ["sample", "-m", str(bidirectional_run), *map(str, BACKWARD), "-p", "mat", "-l", "5", "--no-echo"]
    loaded = loaded_modules_after(f"from charlstm.cli.app import main; assert main({arguments!r}) == 0")
    assert "numpy" in loaded
    assert "torch" not in loaded


def test_a_bidirectional_run_shows_samples_while_it_trains() -> None:
    Path("line.txt").write_text(WORDS * 60)
    trained = charlstm("train", "line.txt", "-o", "m", *SMALL, "--bidirectional", "--epochs", 1)
    assert trained.code == 0, trained.err
    after = trained.err.partition("best so far\n")[2].splitlines()
    assert after[0].startswith("    ") and after[0].strip()
