"""`charlstm sample --direction backward`: what leads up to a prompt, in reading order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import charlstm as package
from charlstm.config import SamplingConfig
from charlstm.evaluation.models import language_model
from charlstm.evaluation.one_way import score
from charlstm.modelfile import ModelFile
from charlstm.sampling.text_model import TextModel
from charlstm.vocabulary import Characters
from tests.conftest import SMALL, charlstm, one_sentence
from tests.test_fill_command import untrained

BACKWARD = ("--direction", "backward", "--seed", 1)


def test_what_is_written_leads_up_to_the_prompt(both_ways_run: Path) -> None:
    result = charlstm("sample", "-m", both_ways_run, *BACKWARD, "-p", "on the mat", "-l", 12, "-t", 0)
    assert result.out == b"the dog sat on the mat\n"
    piped = charlstm("sample", "-m", both_ways_run, *BACKWARD, "-l", 12, "-t", 0, stdin=b"on the mat\n")
    assert piped.out == result.out


def test_the_prompt_and_the_newline_can_be_left_out(both_ways_run: Path) -> None:
    arguments = ("sample", "-m", both_ways_run, *BACKWARD, "-p", "on the mat", "-l", 8, "-t", 0)
    assert charlstm(*arguments, "--no-echo").out == b"dog sat \n"
    assert charlstm(*arguments, "--raw").out == b"dog sat on the mat"


def test_it_begins_after_its_stop_string(both_ways_run: Path) -> None:
    arguments = ("sample", "-m", both_ways_run, *BACKWARD, "-p", "on the mat", "-t", 0)
    assert charlstm(*arguments, "-l", 0, "--stop", "and ").out == b"the dog sat on the mat\n"
    assert charlstm(*arguments, "-l", 40, "--stop", "\n").out == b"the fox and the dog sat on the mat\n"


def test_samples_come_in_order_and_do_not_depend_on_each_other(both_ways_run: Path) -> None:
    arguments = ("sample", "-m", both_ways_run, *BACKWARD, "-p", "mat", "-l", 20, "-t", 1.5)
    three = charlstm(*arguments, "-n", 3).text.splitlines()
    assert all(sample.endswith("mat") for sample in three)
    assert charlstm(*arguments).text.splitlines()[0] == three[0]


def test_objects_say_which_way_was_written(both_ways_run: Path) -> None:
    arguments = ("sample", "-m", both_ways_run, "-p", "mat", "-l", 7, "-t", 0, "--jsonl", "--seed", 1)
    forward, backward = (json.loads(charlstm(*arguments, "--direction", way).text) for way in ("forward", "backward"))
    assert (forward["direction"], backward["direction"]) == ("forward", "backward")
    assert backward["text"] == "on the "
    assert backward["prompt"] == "mat"
    assert backward["stop_reason"] == "length"


def test_forward_a_bidirectional_model_writes_as_its_forward_half_alone(both_ways_run: Path) -> None:
    ModelFile.load(both_ways_run / "best.safetensors").half("forward").save(Path("half.safetensors"))
    arguments = ("-l", 50, "--seed", 4, "-p", "the f")
    whole, half = (charlstm("sample", "-m", model, *arguments).out for model in (both_ways_run, "half.safetensors"))
    assert whole == half


def test_what_cannot_be_gets_one_sentence(run: Path, both_ways_run: Path) -> None:
    one_sentence(charlstm("sample", "-m", run, *BACKWARD), 2, "--direction backward", "--bidirectional")
    one_sentence(charlstm("sample", "-m", both_ways_run, *BACKWARD, "-l", 0), 2, "-l 0", "--stop")
    one_sentence(charlstm("sample", "-m", both_ways_run, "--direction", "up"), 2, "--direction")


def test_a_text_can_be_adapted_to_backward(both_ways_run: Path) -> None:
    Path("other.txt").write_text("the mat and the fox sat on the dog\n" * 4)
    result = charlstm("sample", "-m", both_ways_run, *BACKWARD, "-l", 20, "-p", "dog", "--adapt", "other.txt")
    assert result.code == 0, result.err
    assert result.text.endswith("dog\n")


def test_novelty_is_of_the_text_in_reading_order(both_ways_run: Path) -> None:
    arguments = ("sample", "-m", both_ways_run, *BACKWARD, "-p", "mat", "-l", 30, "-t", 0, "--novelty", "--jsonl")
    assert json.loads(charlstm(*arguments).text)["longest_run_characters"] == 30


def test_a_backward_sample_of_a_document_begins_where_it_does() -> None:
    Path("names.txt").write_text("anna\nberta\nclara\n" * 150)
    trained = charlstm("train", "names.txt", "-o", "m", *SMALL, "--bidirectional", "--document", "line", "--epochs", 8)
    assert trained.code == 0, trained.err
    assert charlstm("sample", "-m", "m", *BACKWARD, "-p", "ara", "-t", 0).out == b"clara\n"


def test_characters_of_several_bytes_stay_whole() -> None:
    letters = "\n\N{SNOWMAN}\N{LATIN SMALL LETTER E WITH ACUTE}\N{CJK UNIFIED IDEOGRAPH-4E16}a"
    file = untrained(Characters("".join(sorted(letters))))
    backward = TextModel(file, "backward")
    text = "".join(backward.generate("a", SamplingConfig(length=60), seed=1))
    assert len(text) == 60
    assert set(text) <= set(letters)
    stopped = "".join(backward.generate("a", SamplingConfig(length=60), seed=1, stop=["\N{SNOWMAN}"]))
    assert stopped == text.rpartition("\N{SNOWMAN}")[2]


def test_scores_backward_are_those_of_the_turned_text(both_ways_run: Path) -> None:
    model, text = package.load(both_ways_run, "backward"), "the dog and the fox\n"
    ids = model.vocabulary.encode(text)
    expected = score(
        language_model(model.file.half("backward")), ids[::-1].copy(), model.vocabulary.start
    ).log_probability[::-1]
    np.testing.assert_allclose(model.score(text), expected, atol=1e-4)  # two engines, both in float32
    with pytest.raises(package.UsageError, match="direction"):
        TextModel(ModelFile.load(both_ways_run / "best.safetensors").half("forward")).file.half("backward")
