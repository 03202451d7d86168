"""Equivalences for every cell and depth: a text in pieces and as a whole, NumPy and torch, float32 and bfloat16."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from charlstm.architecture import weight_shapes
from charlstm.cells import CELLS
from charlstm.config import ModelConfig
from charlstm.model.language_model import LanguageModel
from charlstm.model.layers import TORCH_LAYERS, Engine
from charlstm.sampling.network import Network

pytestmark = pytest.mark.slow

SIZE, LENGTH, BATCH = 11, 30, 2
END = SIZE - 1
TOLERANCE = 1e-4

every_model = pytest.mark.parametrize("cell", CELLS)
every_depth = pytest.mark.parametrize("layers", [1, 2, 3])


def check_pieces(model: LanguageModel, ids: torch.Tensor, whole: torch.Tensor) -> None:
    """Assert that a text read in pieces gives the logits of the whole."""
    for cuts in ([13], list(range(1, LENGTH))):
        states, pieces = model.initial_state(BATCH), []
        for piece in torch.tensor_split(ids, cuts):
            logits, states = model(piece, states)
            pieces.append(logits)
        torch.testing.assert_close(torch.cat(pieces), whole, atol=TOLERANCE, rtol=0)


def model_and_text(
    cell: str, layers: int, engine: Engine = "kernel", end_of_document: int | None = None, **options: Any
) -> tuple[LanguageModel, ModelConfig, torch.Tensor]:
    torch.manual_seed(layers)
    config = replace(ModelConfig(), cell=cell, layers=layers, hidden=16, **{"embedding": 9} | options)
    model = LanguageModel(config, SIZE, engine, end_of_document=end_of_document).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model, config, torch.randint(SIZE, (LENGTH, BATCH))


@pytest.mark.parametrize(
    ("cell", "engine"), [(cell, "kernel") for cell in CELLS] + [(cell, "torch") for cell in TORCH_LAYERS]
)
@every_depth
@torch.inference_mode()
def test_a_text_in_pieces_gives_the_logits_of_the_whole(cell: str, engine: Engine, layers: int) -> None:
    model, _, ids = model_and_text(cell, layers, engine)
    whole, _ = model(ids, model.initial_state(BATCH))
    check_pieces(model, ids, whole)


OPTIONS: list[dict[str, Any]] = [
    {"between": "residual"},
    {"between": "highway"},
    {"head": "all"},
    {"bigrams": 50},
    {"bigrams": 500, "head": "tied"},
    {"head": "tied"},
    {"head": "tied", "embedding": 16},
    {"zoneout": 0.2},
    {"between": "highway", "head": "all", "zoneout": 0.1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("layers", [2, 3])
@torch.inference_mode()
def test_connections_between_layers_are_the_same_in_numpy_and_for_a_text_in_pieces(
    cell: str, layers: int, options: dict[str, Any]
) -> None:
    model, config, ids = model_and_text(cell, layers, **options)
    assert {name: array.shape for name, array in model.export_weights().items()} == weight_shapes(config, SIZE)
    whole, _ = model(ids, model.initial_state(BATCH))
    first, states = model(ids[:13], model.initial_state(BATCH))
    rest, _ = model(ids[13:], states)
    torch.testing.assert_close(torch.cat([first, rest]), whole, atol=TOLERANCE, rtol=0)
    network = Network(config, model.export_weights())
    state = network.initial_state(BATCH)
    for t in range(LENGTH):
        logits, state = network.step(ids[t].numpy(), state)
        np.testing.assert_allclose(logits, whole[t].numpy(), atol=TOLERANCE)
    plain, _, _ = model_and_text(cell, layers)
    assert plain(ids, plain.initial_state(BATCH))[0].sub(whole).abs().max() > 1e-3


@every_model
@every_depth
@torch.inference_mode()
def test_numpy_gives_the_logits_of_torch(cell: str, layers: int) -> None:
    model, config, ids = model_and_text(cell, layers)
    whole, _ = model(ids, model.initial_state(BATCH))
    network = Network(config, model.export_weights())
    states = network.initial_state(BATCH)
    for t in range(LENGTH):
        logits, states = network.step(ids[t].numpy(), states)
        np.testing.assert_allclose(logits, whole[t].numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "options", [{"layers": 1}, {"layers": 3}, {"layers": 2, "bigrams": 70, **OPTIONS[-1]}], ids=str
)
@torch.inference_mode()
def test_with_documents_numpy_pieces_and_single_documents_give_the_logits_of_the_whole(
    cell: str, options: dict[str, Any]
) -> None:
    model, config, ids = model_and_text(cell, end_of_document=END, **options)
    ids[[0, 7, 7, 8, 13, 29], [1, 0, 1, 1, 0, 0]] = END
    whole, _ = model(ids, model.initial_state(BATCH))
    check_pieces(model, ids, whole)
    network = Network(config, model.export_weights(), END)
    after = network.initial_state(BATCH)
    for t in range(LENGTH):
        logits, after = network.step(ids[t].numpy(), after)
        np.testing.assert_allclose(logits, whole[t].numpy(), atol=TOLERANCE)
    for b in range(BATCH):
        begins = [t for t in range(LENGTH) if t == 0 or ids[t, b] == END]
        for first, last in zip(begins, [*begins[1:], LENGTH], strict=True):
            alone, _ = model(ids[first:last, b : b + 1], model.initial_state(1))
            torch.testing.assert_close(alone, whole[first:last, b : b + 1], atol=TOLERANCE, rtol=0)


@every_model
def test_documents_in_one_stream_have_the_gradients_of_the_documents_read_one_by_one(cell: str) -> None:
    model, _, ids = model_and_text(cell, 2, end_of_document=END)
    ids = ids[:, :1] % END
    ids[[0, 11, 12, 20]] = END
    carried = [tuple(part + 1 for part in state) for state in model.initial_state(1)]  # from another text
    together = torch.autograd.grad(model(ids, carried)[0].square().sum(), list(model.parameters()))
    documents = torch.tensor_split(ids, [11, 12, 20])
    alone = torch.stack([model(document, model.initial_state(1))[0].square().sum() for document in documents]).sum()
    names = [name for name, _ in model.named_parameters()]
    for name, ours, expected in zip(names, together, torch.autograd.grad(alone, list(model.parameters())), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3, msg=name)


@every_model
@torch.inference_mode()
def test_a_text_without_document_ends_has_the_logits_of_a_model_without_documents(cell: str) -> None:
    model, _, ids = model_and_text(cell, 2, end_of_document=END)
    plain, _, _ = model_and_text(cell, 2)
    ids = ids % END
    assert torch.equal(model(ids, model.initial_state(BATCH))[0], plain(ids, plain.initial_state(BATCH))[0])
    ids[5, 0] = END
    assert not torch.equal(
        model(ids, model.initial_state(BATCH))[0][5:, 0], plain(ids, plain.initial_state(BATCH))[0][5:, 0]
    )


def test_the_torch_engine_rejects_documents() -> None:
    with pytest.raises(ValueError, match="cannot reset"):
        model_and_text("lstm", 1, "torch", END)


@every_model
@every_depth
def test_the_weights_have_the_names_and_shapes_of_the_model_file(cell: str, layers: int) -> None:
    model, config, _ = model_and_text(cell, layers)
    assert {name: array.shape for name, array in model.export_weights().items()} == weight_shapes(config, SIZE)


@every_model
def test_loading_the_exported_weights_into_another_model_makes_it_equal(cell: str) -> None:
    model, config, _ = model_and_text(cell, 2)
    other = LanguageModel(config, SIZE)
    other.load_weights(model.export_weights())
    for name, array in model.export_weights().items():
        np.testing.assert_array_equal(other.export_weights()[name], array)


@every_model
@torch.inference_mode()
def test_bfloat16_is_close_to_float32(cell: str) -> None:
    model, _, ids = model_and_text(cell, 2)
    exact, _ = model(ids, model.initial_state(BATCH))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = model(ids, model.initial_state(BATCH))
    assert (rough.float().softmax(-1) - exact.softmax(-1)).abs().max() < 0.05


@every_model
@torch.inference_mode()
def test_bfloat16_is_close_to_float32_with_documents(cell: str) -> None:
    model, _, ids = model_and_text(cell, 2, end_of_document=END)
    exact, _ = model(ids, model.initial_state(BATCH))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = model(ids, model.initial_state(BATCH))
    assert (ids == END).any()
    assert (rough.float().softmax(-1) - exact.softmax(-1)).abs().max() < 0.05
