"""The optimizer Muon. That it resumes exactly is tested with the others in test_training.py."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from charlstm.config import ModelConfig, TrainingConfig
from charlstm.model.language_model import LanguageModel
from charlstm.training.muon import orthogonalize
from charlstm.training.optimizer import Optimizer


def test_muon_updates_the_matrix_of_each_gate_as_that_of_torch_would() -> None:
    """torch computes in bfloat16, so that the two differ a bit."""
    hidden, gates = 8, 4
    config = replace(ModelConfig(), hidden=hidden, embedding=12)
    model = LanguageModel(config, 5)
    optimizer = Optimizer(model, TrainingConfig(optimizer="muon", weight_decay=0.5))
    weights = [w for name, w in model.named_parameters() if "weight_ih" in name or "weight_hh" in name]
    assert [tuple(w.shape) for w in weights] == [(32, 12), (32, 8)]
    blocks = [[nn.Parameter(part.detach().clone()) for part in torch.split(w, hidden)] for w in weights]
    reference = torch.optim.Muon(
        [block for each in blocks for block in each], lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"
    )
    before = [w.detach().clone() for w in weights]
    for step in range(3):
        for k, weight in enumerate(weights):
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2 * step + k))
            for block, part in zip(blocks[k], torch.split(weight.grad, hidden), strict=True):
                block.grad = part.clone()
        optimizer.step(0.1)
        reference.step()  # type: ignore[no-untyped-call]
    for weight, own, old in zip(weights, blocks, before, strict=True):
        assert len(own) == gates
        moved = (weight.detach() - old).square().mean().sqrt()
        torch.testing.assert_close(weight, torch.cat(list(own)), rtol=0, atol=0.1 * float(moved))
        assert moved > 0.02


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_orthogonalized_matrices_have_singular_values_near_1(rows: int, columns: int, seed: int) -> None:
    blocks = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (seed % 5 - 2)
    found = orthogonalize(blocks)
    assert found.shape == blocks.shape
    large = torch.linalg.svdvals(blocks)
    kept = large > 0.05 * large[:, :1]  # the smallest take more than five steps
    values = torch.linalg.svdvals(found)[kept]
    assert values.min() > 0.3
    assert values.max() < 1.3
    torch.testing.assert_close(orthogonalize(7 * blocks), found, rtol=0.1, atol=0.05)
    assert not orthogonalize(torch.zeros(1, rows, columns)).any()
