"""`--document`: every line, or every file, for itself, from the corpus to the sample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from charlstm.storage.tensors import read_tensors
from tests.conftest import ROOT, SMALL, charlstm, one_sentence

PLACES = (ROOT / "corpora" / "places.txt").read_text("utf-8")
LINES = (*SMALL, "--hidden", 48, "--document", "line", "--lr", 0.02)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on names of places, a line each."""
    folder = tmp_path_factory.mktemp("names")
    (folder / "places.txt").write_text(PLACES, "utf-8")
    trained = charlstm("train", folder / "places.txt", "-o", folder / "run", *LINES, "--epochs", 6, "--batch-size", 8)
    assert trained.code == 0, trained.err
    assert "1,249 documents with an end symbol each" in trained.err
    return folder / "run"


def test_as_many_names_are_written_as_are_asked_for(names: Path) -> None:
    written = charlstm("sample", "-m", names, "-n", 20, "--seed", 1)
    lines = written.text.splitlines()
    assert len(lines) == 20
    known = PLACES.split()
    assert all(len(line) < 60 for line in lines), "each ended by itself, not at the length"
    mean = sum(map(len, lines)) / 20
    assert 4 < mean < 16, f"as long as names are: {sum(map(len, known)) / len(known)}"


def test_why_a_sample_ended_is_told(names: Path) -> None:
    out = charlstm("sample", "-m", names, "-n", 5, "--seed", 1, "--json").text
    assert {json.loads(line)["stop_reason"] for line in out.splitlines()} == {"document"}
    short = charlstm("sample", "-m", names, "-l", 2, "--seed", 1, "--json").text
    assert json.loads(short)["stop_reason"] == "length"


def test_a_prompt_begins_a_document(names: Path) -> None:
    written = charlstm("sample", "-m", names, "-p", "Ross", "-n", 4, "--seed", 3)
    assert all(line.startswith("Ross") for line in written.text.splitlines())


def test_a_document_does_not_depend_on_those_before_it(names: Path) -> None:
    def loss(text: str) -> float:
        Path("x.txt").write_text(text, "utf-8")
        figures = json.loads(charlstm("eval", "-m", names, "x.txt", "--json").text)
        return float(figures["loss_nats"] * figures["characters"])

    one, two, both = loss("Ambleside\n"), loss("Keswick\n"), loss("Ambleside\nKeswick\n")
    assert both == pytest.approx(one + two, rel=1e-5)
    assert loss("\n\nAmbleside\n\n\nKeswick") == pytest.approx(both, rel=1e-5)


def test_end_symbols_are_counted_and_told(names: Path) -> None:
    Path("x.txt").write_text("Ambleside\nKeswick\n", "utf-8")
    figures = json.loads(charlstm("eval", "-m", names, "x.txt", "--json").text)
    assert figures["end_symbols"] == 2
    assert figures["characters"] == figures["bytes"] == len("Ambleside\nKeswick\n")
    assert "end symbols" in charlstm("eval", "-m", names).text
    characters = charlstm("eval", "-m", names, "x.txt", "--per-char").text.splitlines()
    assert [json.loads(line)["character"] for line in characters] == [*"Ambleside", "", *"Keswick", ""]


def test_resuming_is_exact_with_documents_too() -> None:
    Path("places.txt").write_text(PLACES[:5000], "utf-8")
    constant = (*LINES, "--schedule", "constant", "--set", "training.warmup=0")  # the rate knows nothing of the epochs
    assert charlstm("train", "places.txt", "-o", "whole", *constant, "--epochs", 4).code == 0
    assert charlstm("train", "places.txt", "-o", "parts", *constant, "--epochs", 2).code == 0
    assert charlstm("train", "-o", "parts", "--resume", "--epochs", 4).code == 0
    whole, _ = read_tensors(Path("whole/state.safetensors"))
    parts, _ = read_tensors(Path("parts/state.safetensors"))
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        np.testing.assert_array_equal(parts[name], tensor, err_msg=name)


def test_files_are_documents_of_several_lines() -> None:
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


def test_what_documents_cannot_do_is_said() -> None:
    Path("places.txt").write_text(PLACES, "utf-8")
    one_sentence(charlstm("train", "places.txt", *LINES, "--engine", "torch"), 2, "--engine", "document")
    Path("one.txt").write_text("a" * 4000)
    one_sentence(charlstm("train", "one.txt", *LINES), 1, "too few documents", "--split")
    assert charlstm("train", "places.txt", *LINES, "--epochs", 1, "-o", "run").code == 0
    changed = charlstm("train", "--resume", "-o", "run", "--document", "stream", "--epochs", 2)
    one_sentence(changed, 2, "--document", "stream", "line")


def test_a_model_of_documents_adapts_to_others(names: Path) -> None:
    Path("x.txt").write_text("Blencathra\nBlencow\nBlennerhasset\n" * 20, "utf-8")
    adapted = charlstm("sample", "-m", names, "--adapt", "x.txt", "--adapt-rate", 0.01, "-n", 10, "--seed", 1)
    assert adapted.code == 0, adapted.err
    assert "Blen" in adapted.text
    dynamic = json.loads(charlstm("eval", "-m", names, "x.txt", "--dynamic", "--json").text)
    assert dynamic["dynamic_loss_nats"] < dynamic["loss_nats"]
