"""The cells in NumPy: against torch's layers, and gate by gate where torch has none."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from charlstm.architecture import weight_shapes
from charlstm.cells import ACTIVATIONS, CELLS, sigmoid
from charlstm.config import CELL_NAMES, ModelConfig
from charlstm.matrices import matvec
from charlstm.model.layers import TORCH_LAYERS
from charlstm.sampling.network import Network
from tests.support.texts import ROOT

N, T, E, H = 3, 12, 5, 7


@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_a_cell_run_step_by_step_gives_the_outputs_of_torchs_layer(name: str) -> None:
    torch.manual_seed(0)
    layer, cell = TORCH_LAYERS[name](E, H), CELLS[name]
    weights = {name.removesuffix("_l0"): p.detach().numpy() for name, p in layer.named_parameters()}
    x = torch.randn(T, N, E)
    expected = layer(x)[0].detach().numpy()
    state = (np.zeros((N, H), np.float32),) * len(cell.state)
    for t in range(T):
        contribution = matvec(weights["weight_ih"], x[t].numpy()) + weights["bias_ih"]
        state, _ = cell.step(contribution, state, weights, np.tanh)
        np.testing.assert_allclose(state[0], expected[t], atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", CELLS)
def test_a_step_modifies_neither_its_state_nor_its_input(name: str, activation: str) -> None:
    cell, random = CELLS[name], np.random.default_rng(0)
    weights = {key: random.standard_normal(shape).astype("f") for key, shape in cell.shapes(E, H).items()}
    x = random.standard_normal((N, cell.blocks * H)).astype("f")
    state = tuple(random.standard_normal((N, H)).astype("f") for _ in cell.state)
    before = [array.copy() for array in (x, *state, *weights.values())]
    after, gates = cell.step(x, state, weights, ACTIVATIONS[activation])
    for array, copy in zip((x, *state, *weights.values()), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert all(array.shape == (N, H) and array.dtype == np.float32 for array in (*after, *gates.values()))


def test_a_network_that_resets_a_sequence_does_not_modify_the_states_it_is_given() -> None:
    random, model = np.random.default_rng(0), ModelConfig(cell="lstm", layers=2, hidden=H, embedding=E)
    weights = {name: random.standard_normal(shape).astype("f") for name, shape in weight_shapes(model, 4).items()}
    network = Network(model, weights, end_of_document=3)
    states = [tuple(random.standard_normal((2, N, H)).astype("f")) for _ in range(2)]
    before = [array.copy() for state in states for array in state]
    logits, after = network.step(np.array([1, 3, 2]), states)
    for array, copy in zip([array for state in states for array in state], before, strict=True):
        np.testing.assert_array_equal(array, copy)
    alone, _ = network.step(np.array([3]), network.initial_state(1))
    np.testing.assert_allclose(logits[1], alone[0], atol=1e-6)
    carried, _ = Network(model, weights).step(np.array([1, 3, 2]), states)
    np.testing.assert_array_equal(logits[[0, 2]], carried[[0, 2]])
    assert not np.allclose(logits[1], carried[1])
    assert all(part.dtype == np.float32 for state in after for part in state)


def test_the_choices_of_the_settings_are_the_cells_and_activations() -> None:
    choices = {name: f.metadata["choices"] for name, f in ModelConfig.__dataclass_fields__.items()}
    assert tuple(CELLS) == CELL_NAMES == choices["cell"]
    assert tuple(ACTIVATIONS) == choices["activation"]


def test_sigmoid_does_not_overflow() -> None:
    np.testing.assert_array_equal(sigmoid(np.array([-1e9, 0, 1e9], np.float32)), np.array([0, 0.5, 1], np.float32))


def test_the_gates_of_an_lstm_have_the_values_of_its_equations() -> None:
    ones = np.ones((1, 1), np.float32)
    weights = {"weight_hh": np.zeros((4, 1), np.float32), "bias_hh": np.zeros(4, np.float32)}
    (h, c), gates = CELLS["lstm"].step(np.array([[0, 50, 50, 50]], np.float32), (0 * ones, 2 * ones), weights, np.tanh)
    assert gates["input"] == 0.5
    assert gates["forget"] == gates["candidate"] == gates["output"] == 1
    assert c == 2.5
    assert h == pytest.approx(np.tanh(2.5))


def test_the_two_grus_agree_only_if_the_recurrent_matrix_is_diagonal() -> None:
    random = np.random.default_rng(0)
    x, h = random.standard_normal((N, 3 * H)).astype("f"), random.standard_normal((N, H)).astype("f")
    diagonal = np.concatenate([np.diag(random.standard_normal(H)) for _ in range(3)]).astype("f")
    for matrix, same in ((diagonal, True), (random.standard_normal((3 * H, H)).astype("f"), False)):
        weights = {"weight_hh": matrix, "bias_hh": np.zeros(3 * H, np.float32)}
        after, before = (CELLS[name].step(x, (h,), weights, np.tanh)[0][0] for name in ("gru", "gru-cho"))
        assert np.allclose(after, before, atol=1e-6) == same


def test_a_peephole_lstm_with_peephole_weights_of_zero_is_an_lstm() -> None:
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal(shape).astype("f") for name, shape in CELLS["lstm"].shapes(E, H).items()}
    weights |= {"bias_hh": np.zeros(4 * H, np.float32), "weight_peephole": np.zeros(3 * H, np.float32)}
    x, state = random.standard_normal((N, 4 * H)).astype("f"), tuple(random.standard_normal((2, N, H)).astype("f"))
    plain, peephole = (CELLS[name].step(x, state, weights, np.tanh)[0] for name in ("lstm", "lstm-peephole"))
    np.testing.assert_allclose(plain, peephole, atol=1e-6)


def test_docs_cells_quotes_the_code_of_the_cells() -> None:
    code, page = ((ROOT / name).read_text("utf-8") for name in ("charlstm/cells.py", "docs/cells.md"))
    table = page.partition("## Equations and code")[2].partition("\n## ")[0]
    rows = [row.split("|")[2] for row in table.splitlines() if row.startswith("| ") and "equations" not in row]
    quoted = [piece for row in rows for piece in re.findall("`([^`]+)`", row)]
    assert len(quoted) > 20
    assert [piece for piece in quoted if piece not in code and piece != "c"] == []
