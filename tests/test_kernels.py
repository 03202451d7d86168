"""The kernels: against numerical derivatives, torch's layers and the cells in NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from charlstm.cells import ACTIVATIONS, CELLS
from charlstm.config import ModelConfig
from charlstm.matrices import matvec
from charlstm.model.device import use_threads
from charlstm.model.kernels import pointwise
from charlstm.model.kernels.product import RecurrentProduct
from charlstm.model.kernels.resets import NO_RESETS, Resets
from charlstm.model.layers import TORCH_LAYERS, Layer

pytestmark = pytest.mark.slow

T, B, E, H = 5, 3, 4, 6

every_cell = pytest.mark.parametrize("cell", CELLS)
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS)


def layer_and_inputs(cell: str, activation: str = "tanh", steps: int = T) -> tuple[Layer, Tensor, tuple[Tensor, ...]]:
    """Return a layer with random weights in float64, inputs [T, B, E] and a random initial state."""
    torch.manual_seed(0)
    layer = Layer(replace(ModelConfig(), cell=cell, activation=activation, hidden=H), E, "kernel").double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(steps, B, E, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn(B, H, dtype=torch.float64).div(2).requires_grad_() for _ in CELLS[cell].state)
    return layer, x, state


@every_cell
@every_activation
@pytest.mark.parametrize("steps", [1, T])
def test_the_backward_pass_is_the_derivative_of_the_forward_pass(cell: str, activation: str, steps: int) -> None:
    layer, x, state = layer_and_inputs(cell, activation, steps)
    names = [name for name, _ in layer.named_parameters()]

    def outputs(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        state, weights = tensors[: len(names) * -1], dict(zip(names, tensors[len(names) * -1 :], strict=True))
        y, after = torch.func.functional_call(layer, weights, (x, state))
        return (y, *after)

    assert torch.autograd.gradcheck(outputs, (x, *state, *layer.parameters()))


def keep_except(*restarts: tuple[int, int]) -> Tensor:
    """Return a mask [T, B] that is false at these steps and sequences."""
    keep = torch.ones(T, B, dtype=torch.bool)
    for t, b in restarts:
        keep[t, b] = False
    return keep


SCATTERED = keep_except((0, 1), (2, 0), (2, 1), (3, 1), (4, 2))
"""Resets at the first and the last step, at two steps in a row, of two sequences at once; one step has none."""


@every_cell
@every_activation
@pytest.mark.parametrize("keep", [SCATTERED, SCATTERED[:1], keep_except((1, 0), (1, 1), (1, 2))], ids=["T", "1", "all"])
def test_the_backward_pass_is_the_derivative_with_resets(cell: str, activation: str, keep: Tensor) -> None:
    layer, x, state = layer_and_inputs(cell, activation, len(keep))
    names = [name for name, _ in layer.named_parameters()]

    def outputs(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        state, weights = tensors[: len(names) * -1], dict(zip(names, tensors[len(names) * -1 :], strict=True))
        y, after = torch.func.functional_call(layer, weights, (x, state, Resets(keep)))
        return (y, *after)

    assert torch.autograd.gradcheck(outputs, (x, *state, *layer.parameters()))


def segment_by_segment(
    layer: Layer, x: Tensor, state: tuple[Tensor, ...], keep: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run each sequence alone and piece by piece, cut at its resets; every piece but the first has a zero state."""
    ys, ends = [], []
    for b in range(B):
        pieces, after = [], tuple(part[b : b + 1] for part in state)
        cuts = {0, len(x), *torch.nonzero(~keep[:, b]).flatten().tolist()}
        for first, last in pairwise(sorted(cuts)):
            y, after = layer(x[first:last, b : b + 1], after if keep[first, b] else layer.initial_state(1))
            pieces.append(y)
        ys.append(torch.cat(pieces))
        ends.append(after)
    return torch.cat(ys, 1), tuple(torch.cat(parts) for parts in zip(*ends, strict=True))


@every_cell
@every_activation
@pytest.mark.parametrize("zoneout", [0.0, 0.2])
def test_a_sequence_with_resets_gives_the_results_of_its_pieces(cell: str, activation: str, zoneout: float) -> None:
    layer, x, state = layer_and_inputs(cell, activation)
    layer.zoneout = zoneout
    layer.eval()
    found = []
    for y, after in (layer(x, state, Resets(SCATTERED)), segment_by_segment(layer, x, state, SCATTERED)):
        error = y.square().sum() + sum(part.sin().sum() for part in after)
        found.append((y, *after, *torch.autograd.grad(error, (x, *state, *layer.parameters()))))
    for ours, alone in zip(*found, strict=True):
        torch.testing.assert_close(ours, alone)
    cut = found[0][2 + len(state) : 2 + 2 * len(state)]  # the gradients of the initial state
    assert all(not error[1].any() for error in cut)
    assert cut[-1][0].any()


@every_cell
@pytest.mark.parametrize(("cast", "tolerance"), [(False, 1e-5), (True, 0.05)])
@pytest.mark.parametrize("compiled", [True, False])
def test_resets_give_the_same_results_in_every_precision_and_implementation(
    cell: str, cast: bool, tolerance: float, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x, state = layer_and_inputs(cell)
    y, _ = layer(x, state, Resets(SCATTERED))
    expected = y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))
    layer = layer.float()
    if not compiled:
        monkeypatch.setattr(pointwise, "load_fused", lambda: None)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast):
        y, after = layer(x.detach().float(), tuple(part.detach().float() for part in state), Resets(SCATTERED))
    assert y.dtype == (torch.bfloat16 if cast else torch.float32)
    assert all(part.dtype == torch.float32 for part in after[1:])
    found = y, *torch.autograd.grad(y.float().square().sum(), list(layer.parameters()))
    for ours, exact in zip(found, expected, strict=True):
        largest = float(exact.detach().abs().max())
        torch.testing.assert_close(ours.double(), exact, atol=tolerance * max(largest, 1), rtol=0)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the tensor operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@every_cell
def test_only_steps_with_a_reset_add_operations(cell: str) -> None:
    layer, x, state = layer_and_inputs(cell)
    found, counts = [], []
    masks = keep_except(), keep_except((2, 0)), keep_except((2, 0), (3, 1))
    for resets in (NO_RESETS, *map(Resets, masks)):
        with Operations() as operations:
            y, _ = layer(x, state, resets)
            found.append((y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))))
        counts.append(len(operations.names))
    for plain, unused in zip(found[0], found[1], strict=True):
        assert torch.equal(plain, unused)
    assert counts[0] == counts[1] < counts[2]
    assert counts[3] - counts[2] <= 5, "the states that the step reads, and their gradients"


@every_cell
@every_activation
def test_a_kernel_gives_the_outputs_of_its_cell_step_by_step(cell: str, activation: str) -> None:
    layer, x, state = layer_and_inputs(cell, activation)
    y, after = layer(x, state)
    weights = {name: p.detach().numpy() for name, p in layer.weights().items()}
    parts = tuple(part.detach().numpy() for part in state)
    for t in range(T):
        contribution = matvec(weights["weight_ih"], x[t].detach().numpy()) + weights["bias_ih"]
        parts, _ = CELLS[cell].step(contribution, parts, weights, ACTIVATIONS[activation])
        np.testing.assert_allclose(parts[0], y[t].detach().numpy(), atol=1e-6)
    for part, end in zip(parts, after, strict=True):
        np.testing.assert_allclose(part, end.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("cell", TORCH_LAYERS)
def test_a_kernel_and_torchs_layer_agree_in_outputs_and_gradients(cell: str) -> None:
    layer, x, state = layer_and_inputs(cell)
    found = []
    for engine in ("kernel", "torch"):
        layer.engine = engine
        y, after = layer(x, state)
        error = sum(
            (part * torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view_as(part)).sum() for part in after
        )
        gradients = torch.autograd.grad(y.square().sum() + error, (x, *state, *layer.parameters()))
        found.append((y, *after, *gradients))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@every_cell
def test_looking_up_projected_rows_gives_the_same_as_projecting_the_looked_up_rows(cell: str) -> None:
    layer, _, state = layer_and_inputs(cell)
    table = torch.randn(7, E, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(7, (T, B))
    (y, _), (expected, _) = layer.forward_ids(ids, table, state), layer(table[ids], state)
    torch.testing.assert_close(y, expected)
    for ours, theirs in zip(
        *(torch.autograd.grad(out.square().sum(), (table, *layer.parameters())) for out in (y, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@every_cell
def test_in_bfloat16_states_and_weight_gradients_are_accumulated_in_float32(cell: str) -> None:
    layer, x, state = layer_and_inputs(cell)
    layer = layer.float()
    inputs = x.detach().float(), tuple(part.detach().float() for part in state)
    y, _ = layer(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, rough_after = layer(*inputs)
    assert rough.dtype == torch.bfloat16
    assert all(part.dtype == torch.float32 for part in rough_after[1:])
    torch.testing.assert_close(rough.float(), y, atol=0.1, rtol=0)
    gradients = torch.autograd.grad(rough.float().sum(), list(layer.parameters()))
    for ours, exact in zip(gradients, torch.autograd.grad(y.sum(), list(layer.parameters())), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, exact, atol=0.05 * float(exact.abs().max()) + 0.05, rtol=0)


def test_softsign_is_bounded_and_odd() -> None:
    a = np.linspace(-50, 50, 101, dtype=np.float32)
    s = ACTIVATIONS["softsign"](a)
    assert np.abs(s).max() < 1
    np.testing.assert_array_equal(s, -s[::-1])


@every_cell
def test_in_bfloat16_the_gradient_of_a_frequent_character_is_summed_without_loss(cell: str) -> None:
    layer, _, _ = layer_and_inputs(cell)
    layer = layer.float()
    ids, table, found = torch.zeros(1200, 1, dtype=torch.int64), torch.full((2, E), 0.1, requires_grad=True), []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y, _ = layer.forward_ids(ids, table, layer.initial_state(1))
        found.append(torch.autograd.grad(y.float().sum(), [layer.weights()["bias_ih"]])[0])
    assert (found[0] - found[1]).norm() < 0.1 * found[0].norm()


@every_cell
def test_a_kernel_can_be_differentiated_repeatedly_and_with_gradients_of_any_layout(cell: str) -> None:
    layer, x, state = layer_and_inputs(cell)
    y, after = layer(x, state)
    error = torch.randn(B, T, H, dtype=torch.float64).transpose(0, 1)
    first, second = (torch.autograd.grad(y, (x, *state), error, retain_graph=True) for _ in range(2))
    contiguous = torch.autograd.grad(y, (x, *state), error.contiguous(), retain_graph=True)
    for parts in zip(first, second, contiguous, strict=True):
        torch.testing.assert_close(parts[0], parts[1], rtol=0, atol=0)
        torch.testing.assert_close(parts[0], parts[2])
    assert torch.autograd.grad(after[-1].sum(), x)[0].abs().sum() > 0


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_the_compiled_kernels_agree_with_the_tensor_operations(
    cell: str, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pointwise.load_fused(), "the tests need numba (pip install -e '.[test]')"
    hidden = 37  # not a multiple of the width of a vector instruction
    layer = Layer(replace(ModelConfig(), cell=cell, hidden=hidden), E, "kernel")
    x, state = torch.randn(T, B, E), tuple(torch.randn(B, hidden, requires_grad=True) for _ in layer.initial_state(B))
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(pointwise, "load_fused", lambda: None)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            y, after = layer(x, state)
        assert y.dtype == dtype
        error = y.float().square().sum() + sum(part.float().sum() for part in after)
        found.append((y, *after, *torch.autograd.grad(error, (*state, *layer.parameters()))))
    for ours, theirs in zip(*found, strict=True):
        largest = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs, atol=tolerance * largest, rtol=0)


def run_and_differentiate(layer: Layer, x: Tensor, state: tuple[Tensor, ...], cast: bool = False) -> list[Tensor]:
    """Return the outputs, the final state and the gradients of a layer that restarts at some places."""
    keep = torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(1)) > 0.2
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast):
        y, after = layer(x, state, Resets(keep))
    error = y.float().square().sum() + sum(part.float().sum() for part in after)
    return [y, *after, *torch.autograd.grad(error, (*state, *layer.parameters()))]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize(("batch", "hidden"), [(3, 37), (16, 400), (40, 32)], ids=str)
def test_states_and_their_gradients_do_not_depend_on_the_number_of_threads(
    cell: str, cast: bool, batch: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads share out units, or sequences; without OpenMP they are threads of Python. 7 divides nothing evenly."""
    layer = Layer(replace(ModelConfig(), cell=cell, hidden=hidden), E, "kernel")
    state = tuple(torch.randn(batch, hidden, requires_grad=True) for _ in layer.initial_state(batch))
    x, found = torch.randn(T, batch, E), []
    for threads, openmp in ((1, True), (2, True), (7, True), (3, False)):
        if not openmp:
            monkeypatch.setattr("charlstm.model.kernels.team.find_openmp", lambda: (0, 0, 0, 0))
        with use_threads(threads):
            found.append(run_and_differentiate(layer, x, state, cast)[: 1 + 2 * len(state)])
    for others in found[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(others, found[0], strict=True))


def can_multiply() -> list[str]:
    """Return the ways in which this processor multiplies bfloat16."""
    from charlstm.model.kernels import panels

    kinds = {"floats": True, "pairs": "avx512bf16" in panels.CPU, "tiles": panels.HAS_AMX}
    return [kind for kind, is_there in kinds.items() if is_there]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("kind", can_multiply())
@pytest.mark.parametrize(("batch", "hidden"), [(1, 32), (5, 37), (16, 64), (39, 100)], ids=str)
def test_every_way_to_multiply_bfloat16_agrees_with_the_tensor_operations(
    cell: str, kind: str, batch: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charlstm.model.kernels.panels.HAS_AMX", kind == "tiles")
    monkeypatch.setattr("charlstm.model.kernels.panels.HAS_BF16", kind != "floats")
    layer = Layer(replace(ModelConfig(), cell=cell, hidden=hidden), E, "kernel")
    state = tuple(torch.randn(batch, hidden, requires_grad=True) for _ in layer.initial_state(batch))
    x = torch.randn(T, batch, E)
    compiled = run_and_differentiate(layer, x, state, cast=True)
    monkeypatch.setattr(pointwise, "load_fused", lambda: None)
    for ours, theirs in zip(compiled, run_and_differentiate(layer, x, state, cast=True), strict=True):
        largest = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours.float(), theirs.float(), atol=0.03 * largest, rtol=0)


OTHER_PROCESSOR = """
import torch
from charlstm.model.kernels import panels
from charlstm.config import ModelConfig
from charlstm.model.layers import Layer
torch.manual_seed(1)
layer, x = Layer(ModelConfig(cell="rnn", hidden=37), 4, "kernel"), torch.randn(6, 13, 4)  # little is compiled
y, _ = layer(x, layer.initial_state(13))
(dw,) = torch.autograd.grad(y.sum(), layer.core.weight_hh_l0)
print(panels.TILE.lanes, y.double().square().sum().item(), dw.sum().item())
"""


def narrower_vectors() -> list[tuple[int, str]]:
    """Return the lanes and the features of older processors whose code this one can run."""
    older = [(8, "+avx2,+fma,+avx,+sse4.2,+sse2"), (4, "+sse4.2,+ssse3,+sse2")]
    return older if torch.cpu.get_capabilities().get("avx2") else []


@pytest.mark.parametrize(("lanes", "features"), narrower_vectors())
def test_narrower_vectors_give_the_same_results(lanes: int, features: str, tmp_path: Path) -> None:
    """Processors of other kinds are simulated by the features that numba may use."""
    found = []
    other = {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    for environ in (dict(os.environ), os.environ | other):
        command = [sys.executable, "-c", OTHER_PROCESSOR]
        found.append(subprocess.run(command, env=environ, capture_output=True, check=True).stdout.split())
    assert int(found[1][0]) == lanes
    ours, theirs = (np.array(each[1:], float) for each in found)
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_gradient_of_a_look_up_is_the_sum_of_the_rows(dtype: torch.dtype, threads: int) -> None:
    from charlstm.model.kernels.scatter import sum_rows

    rows, ids = torch.randn(500, 200).to(dtype), torch.randint(7, (500,))
    with use_threads(threads):
        sums = sum_rows(rows, ids, 9)
    torch.testing.assert_close(sums, torch.zeros(9, 200).index_add(0, ids, rows.float()), atol=1e-4, rtol=1e-5)


def test_compiled_functions_are_kept_for_one_state_of_their_modules(tmp_path: Path) -> None:
    """Else numba would load what it compiled before a change in another module whose functions it inlines."""
    from charlstm.storage.cache import identify_modules

    (tmp_path / "a.py").write_text("1")
    before = identify_modules(tmp_path)
    (tmp_path / "b.py").write_text("2")
    identify_modules.cache_clear()
    assert identify_modules(tmp_path) != before


def test_the_compiled_sigmoid_is_accurate_to_3e_7_and_keeps_nan() -> None:
    from charlstm.model.kernels.compiled import arithmetic

    x = np.linspace(-80, 80, 2001, dtype=np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose([arithmetic.fast_sigmoid(a) for a in x], exact, rtol=3e-7)
    far = [arithmetic.fast_sigmoid(np.float32(a)) for a in (-1e30, 1e30, np.nan)]
    np.testing.assert_allclose(far, [0, 1, np.nan], atol=1e-37)


COMPILING = """
import hashlib, sys, torch
from charlstm.config import ModelConfig
from charlstm.model.language_model import LanguageModel
torch.manual_seed(1)
model = LanguageModel(ModelConfig(cell="rnn", hidden=200, embedding=20), 30)  # little is compiled
losses, *_ = model.compute_loss(torch.randint(30, (20, 7)), torch.randint(30, (20, 7)), model.initial_state(7))
losses.smoothed.backward()
print(hashlib.sha256(b"".join(p.grad.numpy().tobytes() for p in model.parameters())).hexdigest())
print("numba" in sys.modules)
"""


def test_the_process_that_compiles_gives_the_same_bits_as_processes_that_load_from_the_cache(tmp_path: Path) -> None:
    environ = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILING]
    first, later = (subprocess.run(command, env=environ, capture_output=True, check=True).stdout for _ in range(2))
    assert (first.split()[1], later.split()[1]) == (b"True", b"False"), "only the first process needs numba"
    assert first.split()[0] == later.split()[0]


SUMMING = """
import torch
from charlstm.model.kernels.scatter import sum_rows
for dtype in ({dtypes}):
    print(sum_rows(torch.full((3, 70), 2, dtype=dtype), torch.tensor([0, 1, 1]), 2)[:, -1].tolist())
"""


def test_functions_that_different_processes_compiled_work_together(tmp_path: Path) -> None:
    """numba may have given them the same symbol."""
    environ = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for dtypes in (["torch.float32"], ["torch.bfloat16"], ["torch.float32", "torch.bfloat16"]):
        command = [sys.executable, "-c", SUMMING.format(dtypes=", ".join([*dtypes, ""]))]
        found = subprocess.run(command, env=environ, capture_output=True, check=True, text=True).stdout
        assert found == "[2.0, 4.0]\n" * len(dtypes)
    assert len(list(tmp_path.rglob("*.json"))) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rows", [1, 5, 200])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_product_of_a_sequence_is_the_ordinary_product(dtype: torch.dtype, rows: int, transposed: bool) -> None:
    """To the last bit where it was tried; another processor may round a sum differently, by one unit of bfloat16."""
    torch.manual_seed(1)
    w = torch.randn(1024, 512).to(dtype) if not transposed else torch.randn(512, 1024).to(dtype).t()
    x, a, bias = torch.randn(rows, 512).to(dtype), torch.randn(rows, 1024).to(dtype), torch.randn(1024).to(dtype)
    product, expected = RecurrentProduct(w, rows), torch.addmm(a, x, w.t())
    close = partial(torch.testing.assert_close, atol=0.25 if dtype == torch.bfloat16 else 1e-4, rtol=1e-2)
    close(product.multiply(x, out=torch.empty_like(a)), torch.mm(x, w.t()))
    close(product.add(bias, x, out=torch.empty_like(a)), torch.addmm(bias, x, w.t()))
    close(product.add(a, x, out=torch.empty_like(a)), expected)
    close(product.add(a, x, out=a), expected)
