"""Streaming = whole, and NumPy = torch, for every cell and depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from charlstm.cells import CELLS
from charlstm.config import ModelConfig
from charlstm.model.language_model import LanguageModel
from charlstm.model.layers import OPERATORS, Engine
from charlstm.modelfile import shapes
from charlstm.sampling.network import Network

SIZE, LENGTH, BATCH = 11, 30, 2
TOLERANCE = 1e-4

every_model = pytest.mark.parametrize("cell", CELLS)
every_depth = pytest.mark.parametrize("layers", [1, 2, 3])


def model_and_text(
    cell: str, layers: int, engine: Engine = "kernel"
) -> tuple[LanguageModel, ModelConfig, torch.Tensor]:
    torch.manual_seed(layers)
    config = replace(ModelConfig(), cell=cell, layers=layers, hidden=16, embedding=9)
    model = LanguageModel(config, SIZE, engine).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model, config, torch.randint(SIZE, (LENGTH, BATCH))


@pytest.mark.parametrize(
    ("cell", "engine"), [(cell, "kernel") for cell in CELLS] + [(cell, "torch") for cell in OPERATORS]
)
@every_depth
@torch.inference_mode()
def test_a_text_in_pieces_gives_the_logits_of_the_whole(cell: str, engine: Engine, layers: int) -> None:
    model, _, ids = model_and_text(cell, layers, engine)
    whole, _ = model(ids, model.start(BATCH))
    for cuts in ([13], list(range(1, LENGTH))):
        states, pieces = model.start(BATCH), []
        for piece in torch.tensor_split(ids, cuts):
            logits, states = model(piece, states)
            pieces.append(logits)
        torch.testing.assert_close(torch.cat(pieces), whole, atol=TOLERANCE, rtol=0)


@every_model
@every_depth
@torch.inference_mode()
def test_numpy_gives_the_logits_of_torch(cell: str, layers: int) -> None:
    model, config, ids = model_and_text(cell, layers)
    whole, _ = model(ids, model.start(BATCH))
    network = Network(config, model.weights())
    states = network.start(BATCH)
    for t in range(LENGTH):
        logits, states = network.step(ids[t].numpy(), states)
        np.testing.assert_allclose(logits, whole[t].numpy(), atol=TOLERANCE)


@every_model
@every_depth
def test_the_weights_have_the_names_and_shapes_of_the_model_file(cell: str, layers: int) -> None:
    model, config, _ = model_and_text(cell, layers)
    assert {name: array.shape for name, array in model.weights().items()} == shapes(config, SIZE)


@every_model
def test_weights_put_into_another_model_make_it_the_same(cell: str) -> None:
    model, config, _ = model_and_text(cell, 2)
    other = LanguageModel(config, SIZE)
    other.load_weights(model.weights())
    for name, array in model.weights().items():
        np.testing.assert_array_equal(other.weights()[name], array)


@every_model
@torch.inference_mode()
def test_bfloat16_is_close_to_float32(cell: str) -> None:
    model, _, ids = model_and_text(cell, 2)
    exact, _ = model(ids, model.start(BATCH))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = model(ids, model.start(BATCH))
    assert (rough.float().softmax(-1) - exact.softmax(-1)).abs().max() < 0.05
