"""Sampling with 8-bit weights: exact products, whatever is computed with them, and what a model loses by them."""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlstm.architecture import weight_shapes
from charlstm.cells import CELLS
from charlstm.config import CELL_NAMES, MAX_QUANTIZATION_LOSS, ModelConfig, SamplingConfig
from charlstm.matrices import MIN_LEVEL, QuantizedMatrix
from charlstm.sampling.compiled import compile_network
from charlstm.sampling.network import Network, SymbolReader
from charlstm.storage.locate import find_model
from charlstm.storage.model import ModelFile
from charlstm.text_model import load
from tests.support.command_line import charlstm
from tests.support.models import MODELS
from tests.support.texts import SMALL

SYMBOLS = 30
SAMPLES = 64
STACKS: tuple[dict[str, Any], ...] = (
    {},
    {"layers": 2, "between": "highway"},
    {"layers": 3, "between": "residual", "head": "all"},
    {"layers": 2, "head": "tied"},
)


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([1, 3, 130, 1500]), st.sampled_from([0.0, 1e-6, 1e3])
)
def test_the_product_of_integers_is_exact(seed: int, rows: int, columns: int, magnitude: float) -> None:
    random = np.random.default_rng(seed)
    matrix = (random.standard_normal((rows, columns)) * magnitude).astype("f")
    quantized = QuantizedMatrix.quantize(matrix, is_bounded=True)
    largest = int(quantized.level)
    assert largest >= MIN_LEVEL
    q = random.choice([-largest, largest, 0, 1], (5, columns))
    integers = np.concatenate(quantized.parts, 1).astype(np.int64)
    for part, columns_of_part in zip(quantized.parts, quantized.columns, strict=True):
        np.testing.assert_array_equal(
            q[:, columns_of_part].astype("f") @ part.T, q[:, columns_of_part] @ integers[:, columns_of_part].T
        )


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_quantized_product_is_close_to_that_of_floats(seed: int, is_bounded: bool) -> None:
    """Within the rounding of the weights, half of 1/127 of the largest in a row, and of the vectors."""
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((20, 50)).astype("f")
    x = random.uniform(-1, 1, (6, 50)).astype("f") * np.float32(1 if is_bounded else 1000)
    error = np.abs(QuantizedMatrix.quantize(matrix, is_bounded).multiply(x) - x @ matrix.T)
    largest = np.abs(x).max(1, keepdims=True) if not is_bounded else 1
    of_weights = np.abs(x).sum(1, keepdims=True) * np.abs(matrix).max(1) / 127 / 2
    of_vectors = np.abs(matrix).sum(1) * largest / MIN_LEVEL / 2
    assert (error <= of_weights + of_vectors + 1e-3 * largest).all()


@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_sample_depends_neither_on_the_others_nor_on_numba(cell: str, stack: dict[str, Any]) -> None:
    """To the last bit."""
    random = np.random.default_rng(0)
    config = ModelConfig(cell=cell, hidden=37, embedding=8, **stack)
    shapes = weight_shapes(config, SYMBOLS)
    weights = {name: (random.standard_normal(shape) / 3).astype("f") for name, shape in shapes.items()}
    together, alone, compiled = (Network(config, weights, quantized=True) for _ in range(3))
    compile_network(compiled)
    states, one, other = together.initial_state(SAMPLES), alone.initial_state(1), compiled.initial_state(1)
    for ids in random.integers(0, SYMBOLS, (30, SAMPLES)):
        logits, states = together.step(ids, states)
        expected, one = alone.step(ids[5:6], one)
        found, other = compiled.step(ids[5:6], other)
        np.testing.assert_array_equal(logits[5], expected[0])
        np.testing.assert_array_equal(found, expected)
    assert len(one[0]) == len(CELLS[cell].state)


def test_training_records_what_the_model_loses(corpus: Path) -> None:
    done = charlstm("train", corpus, *SMALL, "--epochs", 3, "-o", "run")
    assert done.code == 0, done.err
    loss = ModelFile.load(find_model(Path("run"), {})).metrics["quantization_loss_nats"]
    assert 0 < abs(loss) < 0.05


def test_a_model_that_loses_too_much_samples_in_float32() -> None:
    file = MODELS[False]
    assert file.choose_weights(SamplingConfig()) == "int8"
    sensitive = replace(file, metrics={"quantization_loss_nats": 2 * MAX_QUANTIZATION_LOSS})
    assert sensitive.choose_weights(SamplingConfig()) == "fp32"
    assert sensitive.choose_weights(SamplingConfig(weights="int8")) == "int8"


def test_the_weights_are_printed_and_can_be_chosen(run: Path) -> None:
    chosen, floats = (charlstm("sample", "-m", run, "-l", 300, *more) for more in ((), ("--weights", "fp32")))
    assert "int8" in chosen.err
    assert "fp32" in floats.err
    model = load(run)
    for weights in ("int8", "fp32"):
        config = SamplingConfig(length=50, weights=weights)
        command = charlstm("sample", "-m", run, "-l", 50, "--seed", 3, "--weights", weights)
        assert command.out.decode() == "".join(model.generate("", config, seed=3)) + "\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the processes are forks")
def test_a_sample_does_not_depend_on_how_many_processes_share_the_samples(run: Path) -> None:
    model, config = load(run), SamplingConfig(length=40)
    texts = []
    for processes, n in ((1, 150), (2, 150), (3, 150), (2, 70)):
        found: dict[int, bytes] = defaultdict(bytes)
        for fragment in model.stream_fragments("The ", config, seed=7, n=n, processes=processes, stop=["q"]):
            found[fragment.index] += fragment.text
        assert sorted(found) == list(range(n))
        texts.append([found[k] for k in range(70)])
    assert texts[0] == texts[1] == texts[2] == texts[3]
    command = charlstm("sample", "-m", run, "-n", 70, "-l", 40, "--seed", 7, "-p", "The ", "--no-echo", "--stop", "q")
    assert command.out == b"".join(text + b"\n" for text in texts[0])


def test_compiling_in_the_middle_of_a_sample_changes_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SamplingConfig(length=200)
    slow = "".join(load(run).generate("The ", config, seed=7))
    for name in ("DECIDE_AFTER", "LOAD_FROM", "COMPILE_FROM"):
        monkeypatch.setattr(f"charlstm.sampling.generate.{name}", 0)
    model = load(run)
    assert "".join(model.generate("The ", config, seed=7)) == slow
    assert is_compiled(model.quantized_network)


def test_compiled_functions_are_loaded_without_numba(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sampling goes on in NumPy if a function is missing and not to be compiled. A damaged file counts as missing."""
    monkeypatch.setenv("CHARLSTM_CACHE", str(tmp_path))
    model = load("builtin")
    steps = model.build_network(quantized=True)
    compile_network(steps.networks[0], compiling=False)
    assert not is_compiled(steps)
    compile_network(steps.networks[0])
    assert is_compiled(steps)
    for name in [name for name in sys.modules if name.split(".")[0] == "numba"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "charlstm.sampling.kernels")
    loaded = model.build_network(quantized=True)
    compile_network(loaded.networks[0], compiling=False)
    assert is_compiled(loaded)
    logits = [each.step(np.array([3]), each.initial_state(1))[0] for each in (steps, loaded)]
    np.testing.assert_array_equal(logits[0], logits[1])
    for file in tmp_path.rglob("*.json"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ImportError):
        compile_network(model.build_network(quantized=True).networks[0])


def is_compiled(reader: SymbolReader) -> bool:
    """Return whether the steps of single sequences are compiled."""
    return all(step is not None for network in reader.networks for step in network.layer_steps)
