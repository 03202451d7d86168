"""The folder of `export --pytorch`: its model.py computes what charlstm computes, in torch.nn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlstm.architecture import TORCH_CELLS
from charlstm.config import Direction, ModelConfig
from charlstm.export.pytorch import MODULE, write_pytorch
from charlstm.export.pytorch_model import load_folder
from charlstm.sampling.network import Network
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel
from tests.support.onnx_models import make_random_model

configs = st.builds(
    ModelConfig,
    cell=st.sampled_from(TORCH_CELLS),
    layers=st.integers(1, 3),
    hidden=st.just(12),
    embedding=st.sampled_from([8, 12]),
    bigrams=st.sampled_from([0, 7]),
    bidirectional=st.booleans(),
    between=st.sampled_from(["plain", "residual", "highway"]),
    head=st.sampled_from(["top", "all", "tied"]),
)


@pytest.mark.slow
@given(config=configs, backward=st.booleans())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_torch_gives_the_logits_of_numpy(tmp_path: Path, config: ModelConfig, backward: bool) -> None:
    file, backward = make_random_model(config), backward and config.bidirectional
    write_pytorch(file, tmp_path)
    model, about = load_folder(tmp_path, backward=backward)
    direction: Direction = "backward" if backward else "forward"
    half = file.select_direction(direction)
    network = Network(half.config.model, half.weights)
    ids = np.random.default_rng(1).integers(0, about["size"], (50, 2))
    states, expected = network.initial_state(2), []
    for each in ids:
        logits, states = network.step(each, states)
        expected.append(logits)
    with torch.no_grad():
        first, state = model(torch.from_numpy(ids[:20]))
        second, _ = model(torch.from_numpy(ids[20:]), state)
    assert np.abs(torch.cat([first, second]).numpy() - expected).max() < 1e-4


def test_the_weights_of_the_folder_are_a_model_of_charlstm(run: Path, tmp_path: Path) -> None:
    file = ModelFile.load(run / "best.safetensors")
    write_pytorch(file, tmp_path)
    texts = [
        "".join(TextModel(ModelFile.load(path)).generate("The ", seed=1))
        for path in (run / "best.safetensors", tmp_path / "model.safetensors")
    ]
    assert texts[0] == texts[1]


def test_the_module_is_short() -> None:
    code = [line for line in MODULE.read_text("utf-8").splitlines() if line.strip()]
    assert len(code) <= 50


@pytest.mark.parametrize("name", ["model.py", "config.json", "model.safetensors"])
def test_a_folder_that_is_not_writable_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(Exception, match=name):
        write_pytorch(make_random_model(ModelConfig(hidden=8, embedding=4)), tmp_path)
