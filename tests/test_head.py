"""The chunked cross-entropy: against torch's, in values and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from charlstm.architecture import names_per_symbol
from charlstm.config import ModelConfig, RegularizationConfig
from charlstm.model.kernels import cross_entropy as head
from charlstm.model.kernels.cross_entropy import choose_chunk_size, linear_cross_entropy
from charlstm.model.language_model import LanguageModel

pytestmark = pytest.mark.slow

POSITIONS, WIDTH, SYMBOLS = 50, 6, 11
MODEL = ModelConfig(hidden=12, embedding=8, layers=2)


@pytest.fixture(params=["compiled", "tensor operations"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "tensor operations":
        monkeypatch.setattr(head, "load_compiled_softmax", lambda: None)
    return str(request.param)


def set_chunk_size(monkeypatch: pytest.MonkeyPatch, positions: int) -> None:
    """Make chunks of about this many positions."""
    monkeypatch.setattr(head, "MIN_POSITIONS_PER_CHUNK", 1)
    monkeypatch.setattr(head, "MAX_LOGITS_PER_CHUNK", positions * SYMBOLS)


def example(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return inputs, weight and bias, which require gradients, and targets."""
    torch.manual_seed(1)
    shapes = (POSITIONS, WIDTH), (SYMBOLS, WIDTH), (SYMBOLS,)
    x, weight, bias = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return x, weight, bias, torch.randint(SYMBOLS, (POSITIONS,))


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("positions", [1, 7, 25, 49, 50, 1000])
def test_the_chunked_loss_is_torchs_cross_entropy_for_any_chunk_size(
    monkeypatch: pytest.MonkeyPatch, smoothing: float, positions: int
) -> None:
    set_chunk_size(monkeypatch, positions)
    x, weight, bias, targets = example()
    logits = linear(x, weight, bias)
    expected = cross_entropy(logits, targets, label_smoothing=smoothing)
    loss, smoothed = linear_cross_entropy(x, weight, bias, targets, smoothing)
    torch.testing.assert_close(loss, cross_entropy(logits, targets))
    torch.testing.assert_close(smoothed, expected)
    for found, right in zip(
        gradients(3 * smoothed, x, weight, bias), gradients(3 * expected, x, weight, bias), strict=True
    ):
        torch.testing.assert_close(found, right)


def gradients(loss: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, of)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_gradient_of_the_chunked_loss_is_its_derivative(monkeypatch: pytest.MonkeyPatch, smoothing: float) -> None:
    set_chunk_size(monkeypatch, 13)
    x, weight, bias, targets = example(torch.float64)

    def smoothed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_cross_entropy(x, weight, bias, targets, smoothing)[1]

    assert torch.autograd.gradcheck(smoothed, (x, weight, bias))


@pytest.mark.usefixtures("implementation")
def test_the_chunked_loss_in_bfloat16_is_close_and_accumulates_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "MAX_LOGITS_PER_CHUNK", 300 * 1000)
    torch.manual_seed(1)
    x, weight = torch.randn(1200, 16).bfloat16().float(), torch.randn(1000, 16).bfloat16().float()
    bias, targets = torch.randn(1000), torch.randint(1000, (1200,))
    of = [part.requires_grad_() for part in (x, weight, bias)]
    exact = linear_cross_entropy(x, weight, bias, targets)[0]
    right = gradients(cross_entropy(linear(x, weight, bias), targets), *of)
    with torch.autocast("cpu", torch.bfloat16):
        loss, smoothed = linear_cross_entropy(x, weight, bias, targets)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact), rel=2e-4)
    for found, expected in zip(gradients(smoothed, *of), right, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.005 * expected.norm()


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("scale", [1e-3, 60.0, 3e4])
def test_logits_of_any_size_give_finite_losses_and_gradients(scale: float) -> None:
    x, weight, bias, targets = example()
    x = (x * scale).detach().requires_grad_()
    expected = cross_entropy(linear(x, weight, bias), targets)
    loss, smoothed = linear_cross_entropy(x, weight, bias, targets)
    torch.testing.assert_close(loss, expected)
    (found,), (right,) = gradients(smoothed, weight), gradients(expected, weight)
    assert (found - right).norm() < 1e-5 * right.norm()


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("number", [float("nan"), -float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_makes_the_loss_nan(number: float) -> None:
    x, weight, bias, targets = example()
    bias = bias.detach().clone()
    bias[3] = number
    assert torch.isnan(linear_cross_entropy(x, weight, bias, targets)[0])


def test_the_chunked_loss_can_be_differentiated_twice() -> None:
    x, weight, bias, targets = example()
    smoothed = linear_cross_entropy(x, weight, bias, targets)[1]
    smoothed.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    once = weight.grad.clone()
    smoothed.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(weight.grad, 2 * once)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("embedding", [8, 12])
@pytest.mark.parametrize("kind", ["top", "all", "tied"])
def test_the_loss_of_a_model_is_the_cross_entropy_of_its_logits(kind: str, embedding: int, smoothing: float) -> None:
    torch.manual_seed(2)
    settings = replace(MODEL, head=kind, embedding=embedding)
    model = LanguageModel(settings, SYMBOLS, "kernel", RegularizationConfig(label_smoothing=smoothing))
    ids, targets = torch.randint(SYMBOLS, (2, 9, 3))
    losses, _, _ = model.compute_loss(ids, targets, model.initial_state(3))
    logits, _ = model(ids, model.initial_state(3))
    right = cross_entropy(logits.flatten(0, 1), targets.flatten())
    expected = cross_entropy(logits.flatten(0, 1), targets.flatten(), label_smoothing=smoothing)
    torch.testing.assert_close(losses.nats, right)
    torch.testing.assert_close(losses.smoothed, expected)
    parameters = list(model.parameters())
    for found, own in zip(gradients(losses.smoothed, *parameters), gradients(expected, *parameters), strict=True):
        torch.testing.assert_close(found, own)


@pytest.mark.parametrize("positions", [1, 255, 256, 2500, 8192, 100_000])
@pytest.mark.parametrize("symbols", [2, 65, 4743, 100_000])
def test_a_chunk_has_bounded_memory_and_a_minimum_of_positions(positions: int, symbols: int) -> None:
    chunk = choose_chunk_size(positions, symbols)
    assert 1 <= chunk <= positions
    assert chunk * symbols <= max(head.MAX_LOGITS_PER_CHUNK, 2 * head.MIN_POSITIONS_PER_CHUNK * symbols)
    assert chunk >= min(positions, head.MIN_POSITIONS_PER_CHUNK)


def test_models_with_few_and_many_symbols_give_the_same_logits_and_gradients() -> None:
    """A model with few symbols projects the rows of its embedding before it looks them up, one with many after."""
    torch.manual_seed(4)
    few, many = LanguageModel(MODEL, 5), LanguageModel(MODEL, 500)
    own = few.state_dict()
    rows = {
        name: torch.cat([own[name], own[name].new_zeros(495, *own[name].shape[1:])]) for name in names_per_symbol(MODEL)
    }
    many.load_state_dict(own | rows)
    ids = torch.randint(5, (20, 8))
    (first, _), (second, _) = (model(ids, model.initial_state(8)) for model in (few, many))
    torch.testing.assert_close(first, second[..., :5])
    errors = [gradients(z[..., :5].square().mean(), m.embedding.weight)[0] for z, m in ((first, few), (second, many))]
    torch.testing.assert_close(errors[0], errors[1][:5])
