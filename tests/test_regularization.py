"""Regularization: each option does what its paper says, and only in training."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlstm.config import Config, DataConfig, ModelConfig, RegularizationConfig, TrainingConfig
from charlstm.data.corpus import Corpus
from charlstm.model.dropout import draw_mask, drop_rows, drop_units, drop_weights
from charlstm.model.kernels.mean_square import mean_square, mean_square_change
from charlstm.model.language_model import LanguageModel, StackOutputs
from charlstm.training.objective import add_penalties
from charlstm.training.trainer import Trainer
from tests.support.texts import ENGLISH

pytestmark = pytest.mark.slow

MODEL = ModelConfig(hidden=12, embedding=8, layers=2)
SIZE = 7


def network(**settings: Any) -> LanguageModel:
    torch.manual_seed(3)
    model = {name: settings.pop(name) for name in list(settings) if hasattr(MODEL, name)}
    engine = settings.pop("engine", "kernel")
    return LanguageModel(replace(MODEL, **model), SIZE, engine, RegularizationConfig(**settings))


@given(st.floats(0.01, 0.95), st.integers(0, 2**31))
def test_a_mask_has_the_requested_share_of_true_entries(share: float, seed: int) -> None:
    torch.manual_seed(seed)
    found = draw_mask(share, (100, 203), torch.device("cpu")).float().mean().item()
    assert found == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_draws_a_mask_per_step_or_per_window(share: float) -> None:
    torch.manual_seed(1)
    y = torch.ones(50, 4, 300)
    steps, window = drop_units(y, share, "step"), drop_units(y, share, "window")
    for dropped in (steps, window):
        assert dropped.mean().item() == pytest.approx(1, rel=0.15)
        assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.05)
    assert (window == window[0]).all()
    assert not (steps == steps[0]).all()
    assert not (window[:, 0] == window[:, 1]).all(), "every stream has its own mask"


def test_embedding_dropout_drops_whole_characters_and_weight_dropout_single_weights() -> None:
    torch.manual_seed(1)
    rows = drop_rows(torch.ones(200, 16), 0.3)
    assert set(rows.eq(0).float().mean(1).tolist()) == {0.0, 1.0}
    weights = drop_weights(torch.ones(64, 64), 0.3)
    assert 0 < weights.eq(0).float().mean(1).min() < 1


@pytest.mark.parametrize(
    "option",
    [
        {"dropout": 0.4},
        {"dropout": 0.4, "dropout_mask": "window"},
        {"embedding_dropout": 0.4},
        {"weight_dropout": 0.4},
        {"weight_dropout": 0.4, "engine": "torch"},
        {"weight_dropout": 0.4, "cell": "gru"},
        {"zoneout": 0.4},
    ],
    ids=str,
)
def test_dropout_is_random_in_training_only_and_reproducible_by_seed(option: dict[str, Any]) -> None:
    model, ids = network(**option), torch.randint(SIZE, (20, 3))

    def logits(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        y: torch.Tensor = model(ids, model.initial_state(3))[0].detach()
        return y

    assert not torch.equal(logits(1), logits(2))
    assert torch.equal(logits(1), logits(1))
    model.eval()
    assert torch.equal(logits(1), logits(2))


def test_a_dropped_recurrent_weight_gets_no_gradient() -> None:
    model = network(weight_dropout=0.5)
    y, _ = model(torch.randint(SIZE, (9, 3)), model.initial_state(3))
    y.sum().backward()
    gradients = dict(model.named_parameters())["stack.layers.0.core.weight_hh_l0"].grad
    assert gradients is not None
    assert 0.3 < gradients.eq(0).float().mean() < 0.7


def test_zoneout_keeps_the_state_of_most_units_at_a_high_rate() -> None:
    model = network(zoneout=0.9, layers=1)
    model.train()
    before = (torch.full((3, 12), 0.5), torch.full((3, 12), 0.25))
    _, (after,) = model(torch.randint(SIZE, (1, 3)), [before])
    for old, new in zip(before, after, strict=True):
        assert new.eq(old).float().mean() > 0.7
        assert not torch.equal(new, old)


def test_activation_and_temporal_penalties_add_their_mean_squares_to_the_loss() -> None:
    torch.manual_seed(1)
    loss, plain = torch.tensor(1.5), torch.randn(5, 2, 12)
    outputs = StackOutputs(plain, plain * 2)

    def total(**settings: float) -> float:
        return float(add_penalties(loss, outputs, RegularizationConfig(**settings)))  # type: ignore[arg-type]

    assert total() == float(loss)
    assert total(activation_penalty=0.5) == pytest.approx(float(loss + 0.5 * 4 * plain.square().mean()))
    assert total(temporal_penalty=2) == pytest.approx(float(loss + 2 * (plain[1:] - plain[:-1]).square().mean()))


@pytest.mark.parametrize("steps", [2, 3, 6])
def test_the_gradients_of_the_penalties_are_their_derivatives(steps: int) -> None:
    y, keep = torch.randn(steps, 3, 4, dtype=torch.float64, requires_grad=True), torch.rand(steps, 3, 1) > 0.3
    assert torch.autograd.gradcheck(mean_square, (y,))
    assert torch.autograd.gradcheck(partial(mean_square_change, keep=None), (y,))
    assert torch.autograd.gradcheck(partial(mean_square_change, keep=keep), (y,))


def test_the_temporal_penalty_ignores_the_change_between_documents() -> None:
    torch.manual_seed(1)
    model = LanguageModel(MODEL, SIZE, end_of_document=SIZE - 1)
    one, other = torch.randint(SIZE - 1, (2, 6, 1)).unbind()
    boundary = torch.full((1, 1), SIZE - 1)
    whole = torch.cat([boundary, one, boundary, other])

    def changes(ids: torch.Tensor) -> float:
        outputs = model.eval().unroll(ids, model.initial_state(1))[0]
        penalized = add_penalties(torch.zeros(()), outputs, RegularizationConfig(temporal_penalty=1))
        return penalized.item() * (len(ids) - 1)

    parts = changes(torch.cat([boundary, one])) + changes(torch.cat([boundary, other]))
    assert changes(whole) == pytest.approx(parts, rel=1e-5)


def test_l1_shrinks_weights_and_the_reported_loss_excludes_penalties() -> None:
    def trained(l1: float) -> tuple[float, float]:
        regularization = RegularizationConfig(l1=l1, activation_penalty=l1 * 100)
        settings = TrainingConfig(seq_len=16, batch_size=4, device="cpu", weight_decay=0)
        trainer = Trainer(Corpus.from_text(ENGLISH[:2500]), Config(MODEL, DataConfig(), settings, regularization))
        first = trainer.step(0.01)
        for _ in range(30):
            trainer.step(0.01)
        head = dict(trainer.model.named_parameters())["head.weight"]
        return first, float(head.detach().abs().mean())

    plain, sparse = trained(0.0), trained(0.01)
    assert plain[0] == sparse[0]
    assert sparse[1] < 0.8 * plain[1]
