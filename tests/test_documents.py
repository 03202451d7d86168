"""`--document`: each line or file is a document, in training, sampling and evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from charlstm.storage.model import ModelFile
from charlstm.storage.tensors import read_tensors
from charlstm.text_model import TextModel
from tests.support.command_line import assert_fails, charlstm
from tests.support.models import make_chain_model
from tests.support.texts import ENGLISH, ROOT, SMALL

pytestmark = pytest.mark.slow

PLACES = (ROOT / "corpora" / "places.txt").read_text("utf-8")
LINES = (*SMALL, "--hidden", 48, "--document", "line", "--lr", 0.02)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on place names, one per line."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "places.txt").write_text(PLACES, "utf-8")
    trained = charlstm("train", folder / "places.txt", "-o", folder / "run", *LINES, "--epochs", 6, "--batch-size", 8)
    assert trained.code == 0, trained.err
    assert "1,249 documents; " in trained.err
    return folder / "run"


def test_samples_of_documents_end_by_themselves(names: Path) -> None:
    written = charlstm("sample", "-m", names, "-n", 20, "--seed", 1)
    lines = written.text.splitlines()
    assert len(lines) == 20
    known = PLACES.split()
    assert all(len(line) < 60 for line in lines), "each sample ended with its document, not at the maximum length"
    mean = sum(map(len, lines)) / 20
    assert 4 < mean < 16, f"the names in the corpus have {sum(map(len, known)) / len(known)} characters on average"


def test_json_reports_why_a_sample_ended(names: Path) -> None:
    out = charlstm("sample", "-m", names, "-n", 5, "--seed", 1, "--json").text
    assert {json.loads(line)["stop_reason"] for line in out.splitlines()} == {"document"}
    short = charlstm("sample", "-m", names, "-l", 2, "--seed", 1, "--json").text
    assert json.loads(short)["stop_reason"] == "length"


LONG = 700
"""Characters of a document that is longer than a sample of a model without documents."""


@pytest.fixture(scope="module")
def long_documents() -> ModelFile:
    """A model whose every document is the same chain of distinct characters, in both directions."""
    return make_chain_model(LONG)


def test_a_document_longer_than_500_characters_is_written_to_its_end(long_documents: ModelFile) -> None:
    long_documents.save(Path("long.safetensors"))
    for direction in ("forward", "backward"):
        written = charlstm("sample", "-m", "long.safetensors", "-n", 2, "--seed", 1, "--direction", direction)
        assert [len(line) for line in written.text.splitlines()] == [LONG, LONG], direction
        assert "warning" not in written.err
    cut = charlstm("sample", "-m", "long.safetensors", "-l", 600, "--seed", 1)
    assert len(cut.text) == 601
    assert "warning" not in cut.err
    environ = {"CHARLSTM_LENGTH": "10"}
    assert len(charlstm("sample", "-m", "long.safetensors", "--seed", 1, environ=environ).text) == 11


def test_samples_of_documents_need_no_limit(names: Path, long_documents: ModelFile) -> None:
    usual = charlstm("sample", "-m", names, "-n", 3, "--seed", 1)
    assert charlstm("sample", "-m", names, "-n", 3, "-l", 0, "--seed", 1).out == usual.out
    for options in (("--json",), ("--novelty",)):
        unlimited = charlstm("sample", "-m", names, "-n", 2, "-l", 0, "--seed", 1, *options)
        assert unlimited.code == 0, unlimited.err
    long_documents.save(Path("long.safetensors"))
    backward = charlstm("sample", "-m", "long.safetensors", "-l", 0, "-n", 2, "--direction", "backward", "--json")
    assert {len(json.loads(line)["text"]) for line in backward.text.splitlines()} == {LONG}


def test_a_document_without_an_end_is_cut_with_a_warning(
    long_documents: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_documents.save(Path("long.safetensors"))
    for module in ("cli.actions.sample", "storage.model"):
        monkeypatch.setattr(f"charlstm.{module}.DOCUMENT_LENGTH", 50)
    cut = charlstm("sample", "-m", "long.safetensors", "-n", 2, "--seed", 1)
    assert [len(line) for line in cut.text.splitlines()] == [50, 50]
    assert "2 samples did not reach the end of a document within 50 characters; -l sets another limit" in cut.err


def test_a_model_of_documents_writes_whole_ones_from_python(long_documents: ModelFile) -> None:
    assert len("".join(TextModel(long_documents).generate(seed=1))) == LONG


def test_a_prompt_is_the_start_of_a_document(names: Path) -> None:
    written = charlstm("sample", "-m", names, "-p", "Ross", "-n", 4, "--seed", 3)
    assert all(line.startswith("Ross") for line in written.text.splitlines())


def test_the_loss_of_a_document_does_not_depend_on_the_documents_before_it(names: Path) -> None:
    def loss(text: str) -> float:
        Path("x.txt").write_text(text, "utf-8")
        metrics = json.loads(charlstm("eval", "-m", names, "x.txt", "--json").text)
        return float(metrics["loss_nats"] * metrics["characters"])

    one, two, both = loss("Ambleside\n"), loss("Keswick\n"), loss("Ambleside\nKeswick\n")
    assert both == pytest.approx(one + two, rel=1e-5)
    assert loss("\n\nAmbleside\n\n\nKeswick") == pytest.approx(both, rel=1e-5)


def test_eval_counts_end_of_document_symbols(names: Path) -> None:
    Path("x.txt").write_text("Ambleside\nKeswick\n", "utf-8")
    metrics = json.loads(charlstm("eval", "-m", names, "x.txt", "--json").text)
    assert metrics["end_symbols"] == 2
    assert metrics["characters"] == metrics["bytes"] == len("Ambleside\nKeswick\n")
    assert "end symbols" in charlstm("eval", "-m", names).text
    characters = charlstm("score", "-m", names, "x.txt", "--json").text.splitlines()
    assert [json.loads(line)["character"] for line in characters] == [*"Ambleside", "\n", *"Keswick", "\n"]


def test_a_resumed_run_on_documents_ends_with_the_same_state() -> None:
    Path("places.txt").write_text(PLACES[:5000], "utf-8")
    constant = (*LINES, "--schedule", "constant", "--set", "training.warmup=0")  # independent of --epochs
    assert charlstm("train", "places.txt", "-o", "whole", *constant, "--epochs", 4).code == 0
    assert charlstm("train", "places.txt", "-o", "parts", *constant, "--epochs", 2).code == 0
    assert charlstm("train", "-o", "parts", "--resume", "--epochs", 4).code == 0
    whole, _ = read_tensors(Path("whole/state.safetensors"))
    parts, _ = read_tensors(Path("parts/state.safetensors"))
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        np.testing.assert_array_equal(parts[name], tensor, err_msg=name)


def test_files_can_be_documents_of_several_lines() -> None:
    Path("poems").mkdir()
    for k in range(60):
        Path(f"poems/{k}.txt").write_text(f"{k}\nab\n")
    settings = (*SMALL, "--hidden", 48, "--document", "file", "--epochs", 60, "--batch-size", 2, "--lr", 0.02)
    trained = charlstm("train", "poems", "-o", "run", *settings)
    assert trained.code == 0, trained.err
    assert "60 documents" in trained.err
    written = charlstm("sample", "-m", "run", "-t", 0, "--seed", 1).text
    assert written.endswith("\nab\n")
    assert written.count("\n") == 2


def test_a_corpus_of_few_documents_is_split_between_two_of_them() -> None:
    Path("poems").mkdir()
    for k in range(5):
        Path(f"poems/{k}.txt").write_text(ENGLISH[400 * k : 400 * (k + 1)], "utf-8")
    for split in ("0.9,0.1", "0.8,0.1,0.1"):
        trained = charlstm("train", "poems", *SMALL, "--document", "file", "--epochs", 1, "--split", split, "-o", split)
        assert trained.code == 0, trained.err
        for part in ("val", "test")[: split.count(",")]:
            shown = json.loads(charlstm("eval", "-m", split, "--part", part, "--json").text)
            assert shown["end_symbols"] == 1


def test_a_last_document_larger_than_the_validation_part_is_the_validation_part() -> None:
    Path("lines.txt").write_text("little\n" * 50 + "huge " * 500, "utf-8")
    trained = charlstm("train", "lines.txt", *SMALL, "--document", "line", "--epochs", 1, "-o", "run")
    assert trained.code == 0, trained.err
    assert "350 train, 2,501 val" in trained.err


def test_unsupported_uses_of_documents_are_errors() -> None:
    Path("places.txt").write_text(PLACES, "utf-8")
    assert_fails(charlstm("train", "places.txt", *LINES, "--engine", "torch"), 2, "--engine", "document")
    Path("one.txt").write_text("a" * 4000)
    one = charlstm("train", "one.txt", *LINES)
    assert_fails(one, 1, "the corpus has 1 document, and", "--document stream", "--split 1,0")
    assert charlstm("train", "places.txt", *LINES, "--epochs", 1, "-o", "run").code == 0
    changed = charlstm("train", "--resume", "-o", "run", "--document", "stream", "--epochs", 2)
    assert_fails(changed, 2, "--document", "stream", "line")


def test_a_model_of_documents_adapts_to_other_documents(names: Path) -> None:
    Path("x.txt").write_text("Blencathra\nBlencow\nBlennerhasset\n" * 20, "utf-8")
    adapted = charlstm("sample", "-m", names, "--adapt", "x.txt", "--adapt-rate", 0.01, "-n", 10, "--seed", 1)
    assert adapted.code == 0, adapted.err
    assert "Blen" in adapted.text
    dynamic = json.loads(charlstm("eval", "-m", names, "x.txt", "--dynamic", "--json").text)
    assert dynamic["dynamic_loss_nats"] < dynamic["loss_nats"]
