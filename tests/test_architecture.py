"""The table of weights (`charlstm.architecture`)."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest

from charlstm.architecture import (
    list_weights,
    names_by_torch_name,
    names_per_symbol,
    vocabulary_share,
    weight_shapes,
)
from charlstm.cells import CELLS
from charlstm.config import ModelConfig
from charlstm.model.bidirectional import build_model

VARIANTS = [
    ModelConfig(layers=2, hidden=6, embedding=4, head=head, between=between, bidirectional=bidirectional)
    for head, between, bidirectional in product(("top", "all", "tied"), ("plain", "highway"), (False, True))
]


@pytest.mark.parametrize("config", [*VARIANTS, *(replace(VARIANTS[0], cell=cell) for cell in CELLS)], ids=str)
def test_the_weight_table_lists_the_parameters_of_the_torch_module(config: ModelConfig) -> None:
    parameters = {name: tuple(p.shape) for name, p in build_model(config, 11).named_parameters()}
    assert parameters == {weight.torch_name: weight.shape for weight in list_weights(config, 11)}
    assert set(names_by_torch_name(config)) == set(parameters)


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_the_weights_with_one_row_per_symbol_are_those_that_grow_with_the_vocabulary(config: ModelConfig) -> None:
    small, large = weight_shapes(config, 7), weight_shapes(config, 8)
    assert names_per_symbol(config) == {name for name in small if small[name] != large[name]}
    assert all(large[name] == (8, *small[name][1:]) for name in names_per_symbol(config))


def test_the_forward_weights_of_a_bidirectional_model_have_the_names_of_a_model_of_one_direction() -> None:
    for config in VARIANTS:
        one, both = (weight_shapes(replace(config, bidirectional=b), 7) for b in (False, True))
        assert list(one) == list(both)[: len(one)]
        assert all(re.match(r"backward\.|joint\.", name) for name in list(both)[len(one) :])


@pytest.mark.parametrize(("head", "per_symbol", "projection"), [("top", 8 + 12 + 1, 0), ("tied", 8 + 1, 8 * 12)])
def test_the_vocabulary_share_is_that_of_embedding_and_head(head: str, per_symbol: int, projection: int) -> None:
    config = ModelConfig(hidden=12, embedding=8, head=head)
    layer = 4 * 12 * (8 + 12 + 2)
    assert vocabulary_share(config, 100) == pytest.approx(100 * per_symbol / (100 * per_symbol + layer + projection))
    assert vocabulary_share(config, 1) < vocabulary_share(config, 10_000) < 1
