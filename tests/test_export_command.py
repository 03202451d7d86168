"""`charlstm export`: what its files do, what it prints, and what it rejects."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from charlstm.cli.app import main
from charlstm.config import DataConfig, ModelConfig
from charlstm.console import Console
from charlstm.vocabulary import ByteVocabulary, CharVocabulary
from tests.support.command_line import Terminal, assert_fails, charlstm
from tests.support.models import make_untrained_model
from tests.support.modules import loaded_modules_after
from tests.support.onnx_models import LETTERS, OnnxModel, make_random_model
from tests.support.texts import ENGLISH

GREEDY_CHARACTERS = 300


def save_random_model(**model: object) -> Path:
    path = Path("model.safetensors")
    make_random_model(ModelConfig(**{"hidden": 8, "embedding": 4, **model})).save(path)  # type: ignore[arg-type]
    return path


def python_blocks(card: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", card.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_onnxruntime_writes_the_text_that_sample_writes(run: Path) -> None:
    assert charlstm("export", "-m", run, "--onnx", "model.onnx").code == 0
    sampled = charlstm("sample", "-m", run, "-t", 0, "-l", GREEDY_CHARACTERS, "--weights", "fp32", "--raw")
    model = OnnxModel(Path("model.onnx").read_bytes())
    characters, text = model.about["vocabulary"]["characters"], ""
    logits = model.read(np.array([model.about["bos"]]))[0]
    for expected in sampled.text:
        best, second = np.sort(logits)[::-1][:2]
        if characters[logits.argmax()] != expected and best - second < 1e-4:
            break
        text += characters[logits.argmax()]
        logits = model.read(logits.argmax(keepdims=True))[0]
    assert text == sampled.text[: len(text)]
    assert len(text) > 20


def test_the_graph_of_a_sequence_gives_the_loss_that_score_prints(run: Path) -> None:
    assert charlstm("export", "-m", run, "--onnx", "model.onnx", "--sequence").code == 0
    model, text = OnnxModel(Path("model.onnx").read_bytes()), ENGLISH[40_000:40_200].replace("\N{EM DASH}", "-")
    text = "".join(each for each in text if each in model.about["vocabulary"]["characters"])
    scored = charlstm("score", "-m", run, "--json", stdin=text.encode())
    expected = [json.loads(line)["log_probability_nats"] for line in scored.text.splitlines()]
    ids = [model.about["bos"], *map(model.about["vocabulary"]["characters"].index, text)]
    assert np.abs(model.losses(np.array(ids)[:, None])[:, 0] + expected).max() < 1e-4


def test_the_graph_of_both_sides_gives_the_scores_that_score_prints(bidirectional_run: Path) -> None:
    exported = charlstm("export", "-m", bidirectional_run, "--onnx", "model.onnx", "--sequence", "--direction", "both")
    assert exported.code == 0, exported.err
    model = OnnxModel(Path("model.onnx").read_bytes())
    characters = model.about["vocabulary"]["characters"]
    text = "".join(np.random.default_rng(0).choice(list(characters), 60))
    scored = charlstm("score", "-m", bidirectional_run, "--json", stdin=text.encode())
    records = [json.loads(line) for line in scored.text.splitlines()]
    ids = np.array([model.about["bos"], *map(characters.index, text), model.about["bos"]])
    logits = model.read(ids[:, None])[:, 0].astype(np.float64)
    found = logits[np.arange(len(text)), ids[1:-1]] - np.log(np.exp(logits).sum(1))
    assert np.abs(found - [record["both_sides_log_probability_nats"] for record in records]).max() < 1e-4


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_direction_of_a_bidirectional_model_scores_what_its_sample_writes(
    bidirectional_run: Path, direction: str
) -> None:
    exported = charlstm("export", "-m", bidirectional_run, "--onnx", "m.onnx", "--direction", direction)
    assert exported.code == 0, exported.err
    options = ("-t", 0, "-l", 40, "--weights", "fp32", "--raw", "--direction", direction)
    sampled = charlstm("sample", "-m", bidirectional_run, *options).text
    model, text = OnnxModel(Path("m.onnx").read_bytes()), ""
    logits = model.read(np.array([model.about["bos"]]))[0]
    for _ in sampled:
        text += model.about["vocabulary"]["characters"][logits.argmax()]
        logits = model.read(logits.argmax(keepdims=True))[0]
    assert text == (sampled if direction == "forward" else sampled[::-1])


def test_export_prints_paths_and_measurements(run: Path) -> None:
    exported = charlstm("export", "-m", run, "--onnx", "model.onnx", "--weights", "int8", "--pytorch", "folder")
    assert exported.text.splitlines() == [
        "model.onnx",
        *(f"folder/{name}" for name in ("model.safetensors", "config.json", "model.py")),
        "README.md",
        "folder/README.md",
    ]
    assert re.search(r"int8 weights change the loss by [+-]0\.\d{5} nats per character of its validation", exported.err)
    assert re.search(
        r"\d+\.\d% of a sample of 2,000 characters is copied .* in runs of 20 or more \(longest: \d+\)", exported.err
    )
    onnx.checker.check_model(onnx.load("model.onnx"), full_check=True)


def test_export_writes_its_results_as_json(run: Path) -> None:
    exported = charlstm("export", "-m", run, "--onnx", "model.onnx", "--weights", "fp16", "--json", "-q")
    record = json.loads(exported.text)
    assert record["files"] == ["model.onnx", "README.md"]
    assert abs(record["weights_loss_nats"]) < 1e-3
    assert record["sample_characters"] == 2000
    assert 0 <= record["copied_share"] <= 1
    assert exported.err == ""


def test_a_model_without_its_training_text_is_exported_with_a_sentence_about_that(run: Path) -> None:
    copied = shutil.copy(run / "best.safetensors", "copied.safetensors")
    exported = charlstm("export", "-m", copied, "--onnx", "model.onnx", "--weights", "int8")
    assert exported.code == 0
    assert "how much of a sample is training text is not known" in exported.err
    assert "nats per character of its own sample" in exported.err
    assert "Not measured" in Path("README.md").read_text("utf-8")


def test_a_model_that_has_memorized_its_text_is_found_out(bidirectional_run: Path) -> None:
    exported = charlstm("export", "-m", bidirectional_run, "--onnx", "model.onnx", "--json")
    assert json.loads(exported.text)["copied_share"] > 0.9


def test_an_onnx_file_can_be_piped(run: Path) -> None:
    exported = charlstm("export", "-m", run, "--onnx", "-")
    onnx.checker.check_model(onnx.load_from_string(exported.out))
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
def test_a_model_file_can_be_piped(weights: str) -> None:
    path = save_random_model()
    piped = charlstm("export", "-m", path, "--charlstm", "-", "--weights", weights)
    assert list(Path().iterdir()) == [path], piped.err
    assert charlstm("export", "-m", path, "--charlstm", "copy.safetensors", "--weights", weights).code == 0
    assert piped.out == Path("copy.safetensors").read_bytes()


@pytest.mark.parametrize("options", [(), ("--sequence",)], ids=["step", "sequence"])
def test_the_program_of_the_card_runs(run: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert charlstm("export", "-m", run, "--onnx", "model.onnx", *options).code == 0
    (program,) = python_blocks(Path("README.md"))
    exec(program, {})
    printed = capsys.readouterr().out
    assert (len(printed) == 201) if not options else re.match(r"nats per character: \d", printed)


def test_every_vocabulary_and_direction_has_a_program_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    vocabularies = [ByteVocabulary(documents=True), CharVocabulary("\nab", with_unknown=True, documents=True), LETTERS]
    cases = [("--direction", "backward"), (), ("--sequence", "--direction", "both")]
    for vocabulary, options in zip(vocabularies, cases, strict=True):
        data = DataConfig(level=vocabulary.level, document="stream" if vocabulary is LETTERS else "line")
        make_untrained_model(vocabulary, data).save(Path("model.safetensors"))
        exported = charlstm("export", "-m", "model.safetensors", "--onnx", "model.onnx", *options)
        assert exported.code == 0, exported.err
        (program,) = python_blocks(Path("README.md"))
        exec(program, {})
        assert capsys.readouterr().out


def test_the_card_names_the_packages_of_its_programs(run: Path) -> None:
    assert charlstm("export", "-m", run, "--onnx", "model.onnx", "--pytorch", "torch").code == 0
    assert "pip install onnxruntime`" in Path("README.md").read_text()
    assert "pip install torch safetensors`" in Path("torch/README.md").read_text()


def test_a_readme_of_the_user_is_left_as_it_is(run: Path) -> None:
    Path("README.md").write_text("# Mine\n", "utf-8")
    exported = charlstm("export", "-m", run, "--onnx", "model.onnx")
    assert "README.md is not a model card, so it was left as it is" in exported.err
    assert exported.text == "model.onnx\n"
    assert Path("README.md").read_text("utf-8") == "# Mine\n"


def test_a_card_that_replaces_that_of_another_export_says_so() -> None:
    model = save_random_model()
    replaced = "README.md replaces the model card of an earlier export"
    assert replaced not in charlstm("export", "-m", model, "--onnx", "a.onnx").err
    assert replaced in charlstm("export", "-m", model, "--onnx", "b.onnx").err


@pytest.mark.parametrize("option", ["--html", "--onnx", "--charlstm"])
def test_a_file_that_is_no_export_is_not_replaced(option: str) -> None:
    model = save_random_model()
    Path("x.txt").write_text(ENGLISH[:200], "utf-8")
    assert_fails(charlstm("export", "-m", model, option, "x.txt"), 2, f"{option} x.txt would replace a file that is")
    assert Path("x.txt").read_text("utf-8") == ENGLISH[:200]
    Path("x.txt").write_bytes(b"")
    for _ in range(2):
        assert charlstm("export", "-m", model, option, "x.txt").code == 0


def test_messages_of_an_export_name_no_file_of_the_documentation() -> None:
    exported = charlstm("export", "-m", save_random_model(), "--onnx", "a.onnx")
    assert "docs/" not in exported.err
    assert "check that you may give away its training text" in exported.err


def test_a_card_is_replaced_by_the_next_export(run: Path, bidirectional_run: Path) -> None:
    for model in (run, bidirectional_run):
        assert "README.md" in charlstm("export", "-m", model, "--onnx", "model.onnx").text
    assert "(bidirectional lstm 1x" in Path("README.md").read_text("utf-8")


def test_a_module_of_the_user_is_not_replaced(run: Path) -> None:
    Path("model.py").write_text("mine = 1\n", "utf-8")
    assert_fails(charlstm("export", "-m", run, "--pytorch", "."), 2, "model.py was not written by charlstm export")
    assert Path("model.py").read_text("utf-8") == "mine = 1\n"
    assert not Path("model.safetensors").exists()


@pytest.mark.parametrize("content", ['{"model_type": "gpt2"}', "[]", "{", "[" * 100_000, None])
def test_weights_and_settings_of_another_program_are_not_replaced(content: str | None) -> None:
    path, folder = save_random_model(), Path("other")
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"mine")
    if content is not None:
        (folder / "config.json").write_text(content)
    name = "model.safetensors" if content is None else "config.json"
    failed = charlstm("export", "-m", path, "--pytorch", folder)
    assert_fails(failed, 2, f"other/{name} was not written by charlstm export", "name another folder")
    assert (folder / "model.safetensors").read_bytes() == b"mine"


def test_a_folder_of_an_earlier_export_is_replaced() -> None:
    path = save_random_model()
    for _ in range(2):
        assert charlstm("export", "-m", path, "--pytorch", "out").code == 0


@pytest.mark.parametrize(
    ("model", "options", "parts"),
    [
        ({}, (), ("no format is named", "--onnx FILE, --pytorch FOLDER or --charlstm FILE")),
        ({}, ("--pytorch", "out", "--sequence"), ("--sequence is an option of --onnx FILE",)),
        ({}, ("--pytorch", "-"), ("writes a folder",)),
        ({}, ("--pytorch", "model.safetensors"), ("is a file",)),
        ({}, ("--onnx", "."), ("--onnx writes a file",)),
        ({}, ("--onnx", "model.safetensors"), ("would replace the model itself",)),
        ({}, ("--onnx", "-", "--json"), ("--json and a file",)),
        ({}, ("--onnx", "m", "--direction", "backward"), ("--direction backward needs a bidirectional model",)),
        ({"bidirectional": True}, ("--onnx", "m", "--direction", "both"), ("add --sequence",)),
        ({"cell": "mlstm"}, ("--onnx", "m", "--sequence"), ("no operator for the cell mlstm", "leave out --sequence")),
        ({"zoneout": 0.1}, ("--onnx", "m", "--sequence"), ("no zoneout", "leave out --sequence")),
        ({"cell": "gru-cho"}, ("--pytorch", "out"), ("no module for the cell gru-cho", "--onnx exports every model")),
        ({"activation": "softsign"}, ("--pytorch", "out"), ("no softsign",)),
        ({"zoneout": 0.1}, ("--pytorch", "out"), ("no zoneout",)),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_exported_is_one_sentence(
    model: dict[str, object], options: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    path = save_random_model(**model)
    assert_fails(charlstm("export", "-m", path, *options), 2, *parts)
    assert list(Path().iterdir()) == [path]


def test_a_damaged_model_and_a_missing_folder_are_one_sentence() -> None:
    path = save_random_model()
    assert_fails(charlstm("export", "-m", path, "--onnx", "missing/model.onnx"), 1, "missing/model.onnx")
    path.write_bytes(path.read_bytes()[:-9])
    assert_fails(
        charlstm("export", "-m", path, "--onnx", "m.onnx"), 1, "model.safetensors is not a charlstm model file"
    )
    assert_fails(charlstm("export", "-m", "nowhere", "--onnx", "m.onnx"), 2, "there is no model at nowhere")


@pytest.mark.parametrize("option", ["--html", "--onnx", "--charlstm"])
def test_a_file_is_not_written_to_a_terminal(option: str) -> None:
    save_random_model()
    err = io.StringIO()
    code = main(["export", "-m", "model.safetensors", option, "-"], Console(Terminal(), Terminal(), err, {}))
    assert (code, err.getvalue().count("\n")) == (2, 1)
    assert "redirect stdout" in err.getvalue()


def test_a_missing_onnx_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_random_model()
    missing: ModuleType | None = None
    for name in [name for name in sys.modules if name.startswith("charlstm.export.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", missing)
    assert_fails(charlstm("export", "-m", path, "--onnx", "m.onnx"), 1, "needs onnx", "pip install 'charlstm[onnx]'")
    assert charlstm("export", "-m", path, "--pytorch", "out").code == 0


@pytest.mark.slow
def test_export_does_not_import_torch(run: Path) -> None:
    arguments = ["export", "-m", str(run), "--onnx", "m.onnx", "--weights", "int8", "--pytorch", "out", "--json"]
    start = "import os, sys; out = os.dup(1); os.dup2(2, 1); from charlstm.cli.app import main"
    loaded = loaded_modules_after(f"{start}; assert main({arguments}) == 0; sys.stdout.flush(); os.dup2(out, 1)")
    assert "onnx" in loaded
    assert "torch" not in loaded


@pytest.mark.slow
def test_the_folder_for_torch_runs_without_charlstm(run: Path) -> None:
    assert charlstm("export", "-m", run, "--pytorch", "out").code == 0
    (program,) = python_blocks(Path("out/README.md"))
    check = "\nimport sys\nassert not any(name.startswith('charlstm') for name in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program + check], capture_output=True, cwd="out", text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 201
