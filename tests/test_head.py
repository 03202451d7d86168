"""The loss over a vocabulary, taken a chunk at a time: it is torch's cross-entropy, in values and gradients."""

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

PLACES, WIDTH, SYMBOLS = 50, 6, 11
MODEL = ModelConfig(hidden=12, embedding=8, layers=2)


@pytest.fixture(params=["compiled", "tensor operations"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "tensor operations":
        monkeypatch.setattr(head, "load_compiled_softmax", lambda: None)
    return str(request.param)


def chunks_of(monkeypatch: pytest.MonkeyPatch, places: int) -> None:
    """Chunks of about so many places."""
    monkeypatch.setattr(head, "MIN_CHUNK_POSITIONS", 1)
    monkeypatch.setattr(head, "MAX_CHUNK_LOGITS", places * SYMBOLS)


def example(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, weight and bias, all of which want gradients, and targets."""
    torch.manual_seed(1)
    shapes = (PLACES, WIDTH), (SYMBOLS, WIDTH), (SYMBOLS,)
    x, weight, bias = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return x, weight, bias, torch.randint(SYMBOLS, (PLACES,))


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("places", [1, 7, 25, 49, 50, 1000])
def test_it_is_torchs_loss_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch, smoothing: float, places: int) -> None:
    chunks_of(monkeypatch, places)
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
def test_its_gradient_is_that_of_its_value(monkeypatch: pytest.MonkeyPatch, smoothing: float) -> None:
    chunks_of(monkeypatch, 13)
    x, weight, bias, targets = example(torch.float64)

    def minimised(*of: Tensor) -> Tensor:
        return linear_cross_entropy(*of, targets, smoothing)[1]

    assert torch.autograd.gradcheck(minimised, (x, weight, bias))  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("arithmetic")
def test_bfloat16_stays_close_and_its_sums_are_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "MAX_CHUNK_LOGITS", 300 * 1000)
    torch.manual_seed(1)
    x, weight = torch.randn(1200, 16).bfloat16().float(), torch.randn(1000, 16).bfloat16().float()
    bias, targets = torch.randn(1000), torch.randint(1000, (1200,))
    of = [part.requires_grad_() for part in (x, weight, bias)]
    exact = linear_cross_entropy(x, weight, bias, targets)[0]
    right = gradients(cross_entropy(linear(x, weight, bias), targets), *of)
    with torch.autocast("cpu", torch.bfloat16):
        loss, minimised = linear_cross_entropy(x, weight, bias, targets)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact), rel=2e-4)
    for found, expected in zip(gradients(minimised, *of), right, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.005 * expected.norm()


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("scale", [1e-3, 60.0, 3e4])
def test_logits_of_any_size_neither_overflow_nor_vanish(scale: float) -> None:
    x, weight, bias, targets = example()
    x = (x * scale).detach().requires_grad_()
    expected = cross_entropy(linear(x, weight, bias), targets)
    loss, minimised = linear_cross_entropy(x, weight, bias, targets)
    torch.testing.assert_close(loss, expected)
    (found,), (right,) = gradients(minimised, weight), gradients(expected, weight)
    assert (found - right).norm() < 1e-5 * right.norm()


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("number", [float("nan"), -float("nan"), float("inf")])
def test_what_is_no_number_is_seen_in_the_loss(number: float) -> None:
    x, weight, bias, targets = example()
    bias = bias.detach().clone()
    bias[3] = number
    assert torch.isnan(linear_cross_entropy(x, weight, bias, targets)[0])


def test_the_graph_can_be_gone_through_twice() -> None:
    x, weight, bias, targets = example()
    minimised = linear_cross_entropy(x, weight, bias, targets)[1]
    minimised.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    once = weight.grad.clone()
    minimised.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(weight.grad, 2 * once)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("embedding", [8, 12])
@pytest.mark.parametrize("kind", ["top", "all", "tied"])
def test_a_models_loss_is_that_of_its_logits(kind: str, embedding: int, smoothing: float) -> None:
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


@pytest.mark.parametrize("places", [1, 255, 256, 2500, 8192, 100_000])
@pytest.mark.parametrize("symbols", [2, 65, 4743, 100_000])
def test_a_chunk_is_bounded_and_never_so_short_that_sums_outweigh_products(places: int, symbols: int) -> None:
    chunk = choose_chunk_size(places, symbols)
    assert 1 <= chunk <= places
    assert chunk * symbols <= max(head.MAX_CHUNK_LOGITS, 2 * head.MIN_CHUNK_POSITIONS * symbols)
    assert chunk >= min(places, head.MIN_CHUNK_POSITIONS)


def test_rows_projected_before_or_after_they_are_looked_up_are_the_same() -> None:
    """Which comes first is a matter of speed, and so of the numbers of rows and of ids."""
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
