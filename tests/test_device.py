"""How `auto` is resolved: device, precision and engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from charlstm.config import ModelConfig
from charlstm.errors import UsageError
from charlstm.model import device
from charlstm.model.device import choose_device

pytestmark = pytest.mark.slow


def fake_machine(monkeypatch: pytest.MonkeyPatch, *capabilities: str, cuda: bool = False) -> None:
    """Pretend to run on a processor with these capabilities, with or without a CUDA device."""
    monkeypatch.setattr(device, "cpu_has", lambda *names: bool(set(names) & set(capabilities)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("cell", "hidden", "capabilities", "expected"),
    [
        ("lstm", 512, (), ("fp32", "kernel")),
        ("gru", 512, (), ("fp32", "kernel")),
        ("rnn", 512, (), ("fp32", "kernel")),
        ("lstm", 512, ("avx512_bf16", "avx512_bw"), ("bf16", "kernel")),
        ("lstm", 128, ("avx512_bf16", "avx512_bw"), ("fp32", "kernel")),
        ("mlstm", 128, ("amx_bf16",), ("fp32", "kernel")),
    ],
)
def test_auto_chooses_the_fastest_precision_and_engine_for_each_cpu(
    cell: str, hidden: int, capabilities: tuple[str, ...], expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_machine(monkeypatch, *capabilities)
    chosen = choose_device(replace(ModelConfig(), cell=cell, hidden=hidden))
    assert (chosen.name, chosen.precision, chosen.engine) == ("cpu", *expected)


@pytest.mark.parametrize(
    ("cell", "activation", "engine"),
    [("lstm", "tanh", "torch"), ("gru", "tanh", "torch"), ("lstm", "softsign", "kernel"), ("jordan", "tanh", "kernel")],
)
def test_auto_chooses_cudnn_on_cuda_if_cudnn_has_the_cell(
    cell: str, activation: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_machine(monkeypatch, cuda=True)
    chosen = choose_device(replace(ModelConfig(), cell=cell, activation=activation))
    assert (chosen.name, chosen.precision, chosen.engine) == ("cuda", "bf16", engine)


def test_without_numba_onednn_runs_an_lstm_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(monkeypatch)
    monkeypatch.setattr("charlstm.model.device.load_fused", lambda: None)
    assert choose_device(ModelConfig()).engine == "torch"
    assert choose_device(ModelConfig(), resets=True).engine == "kernel"
    assert choose_device(replace(ModelConfig(), cell="gru")).engine == "kernel"


def test_an_explicit_device_precision_or_engine_is_used_or_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_machine(monkeypatch)
    assert choose_device(ModelConfig(), "cpu", "bf16", "kernel").engine == "kernel"
    with pytest.raises(UsageError, match="--device cuda"):
        choose_device(ModelConfig(), "cuda")
    with pytest.raises(UsageError, match="oneDNN"):
        choose_device(ModelConfig(), "cpu", "bf16", "torch")
    assert choose_device(ModelConfig(), "cpu", "fp32").engine == "kernel"
    assert choose_device(ModelConfig(), "cpu", "fp32", resets=True).engine == "kernel"
    with pytest.raises(UsageError, match="cannot reset the state"):
        choose_device(ModelConfig(), engine="torch", resets=True)
    with pytest.raises(UsageError, match="no layer"):
        choose_device(replace(ModelConfig(), cell="gru-cho"), engine="torch")
