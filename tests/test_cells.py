"""The equations of cells.py against torch's operators, gate by gate where torch shows none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from charlstm.cells import CELLS, Weights, product, sigmoid

OPERATORS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
N, T, E, H = 3, 12, 5, 7


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_torchs_layer_a_step_at_a_time(name: str) -> None:
    torch.manual_seed(0)
    layer, cell = OPERATORS[name](E, H), CELLS[name]
    weights = Weights(*(p.detach().numpy() for p in layer.parameters()))
    x = torch.randn(T, N, E)
    expected = layer(x)[0].detach().numpy()
    state = (np.zeros((N, H), np.float32),) * cell.states
    for t in range(T):
        state, _ = cell.step(product(weights.ih, x[t].numpy()) + weights.b_ih, state, weights)
        np.testing.assert_allclose(state[0], expected[t], atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_a_step_changes_neither_state_nor_input(name: str) -> None:
    cell, random = CELLS[name], np.random.default_rng(0)
    weights = Weights(
        *(
            random.standard_normal(s).astype("f")
            for s in ((cell.gates * H, E), (cell.gates * H, H), cell.gates * H, cell.gates * H)
        )
    )
    x = random.standard_normal((N, cell.gates * H)).astype("f")
    state = tuple(random.standard_normal((N, H)).astype("f") for _ in range(cell.states))
    before = [array.copy() for array in (x, *state)]
    after, gates = cell.step(x, state, weights)
    for array, copy in zip((x, *state), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert all(array.shape == (N, H) and array.dtype == np.float32 for array in (*after, *gates.values()))


def test_sigmoid_does_not_overflow() -> None:
    np.testing.assert_array_equal(sigmoid(np.array([-1e9, 0, 1e9], np.float32)), np.array([0, 0.5, 1], np.float32))


def test_the_gates_are_those_of_the_equations() -> None:
    ones = np.ones((1, 1), np.float32)
    weights = Weights(ones, np.zeros((4, 1), np.float32), np.zeros(4, np.float32), np.zeros(4, np.float32))
    (h, c), gates = CELLS["lstm"].step(np.array([[0, 50, 50, 50]], np.float32), (0 * ones, 2 * ones), weights)
    assert gates["input"] == 0.5
    assert gates["forget"] == gates["candidate"] == gates["output"] == 1
    assert c == 2.5
    assert h == pytest.approx(np.tanh(2.5))
