"""What `auto` comes to: device, precision and engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from charlstm.config import ModelConfig
from charlstm.errors import UsageError
from charlstm.model import device
from charlstm.model.device import choose_device


def processor(monkeypatch: pytest.MonkeyPatch, *capabilities: str, cuda: bool = False) -> None:
    """Another machine than this one."""
    monkeypatch.setattr(device, "cpu_has", lambda *names: bool(set(names) & set(capabilities)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("cell", "hidden", "capabilities", "expected"),
    [
        ("lstm", 512, (), ("fp32", "torch")),
        ("gru", 512, (), ("fp32", "kernel")),
        ("rnn", 512, (), ("fp32", "kernel")),
        ("lstm", 512, ("avx512_bf16", "avx512_bw"), ("bf16", "kernel")),
        ("lstm", 128, ("avx512_bf16", "avx512_bw"), ("fp32", "torch")),
        ("mlstm", 128, ("amx_bf16",), ("fp32", "kernel")),
    ],
)
def test_a_cpu_gets_what_is_fastest_on_it(
    cell: str, hidden: int, capabilities: tuple[str, ...], expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, *capabilities)
    chosen = choose_device(replace(ModelConfig(), cell=cell, hidden=hidden))
    assert (chosen.name, chosen.precision, chosen.engine) == ("cpu", *expected)


@pytest.mark.parametrize(
    ("cell", "activation", "engine"),
    [("lstm", "tanh", "torch"), ("gru", "tanh", "torch"), ("lstm", "softsign", "kernel"), ("jordan", "tanh", "kernel")],
)
def test_cuda_gets_cudnn_where_cudnn_has_the_cell(
    cell: str, activation: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, cuda=True)
    chosen = choose_device(replace(ModelConfig(), cell=cell, activation=activation))
    assert (chosen.name, chosen.precision, chosen.engine) == ("cuda", "bf16", engine)


def test_what_was_asked_for_is_what_there_is_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch)
    assert choose_device(ModelConfig(), "cpu", "bf16", "kernel").engine == "kernel"
    with pytest.raises(UsageError, match="--device cuda"):
        choose_device(ModelConfig(), "cuda")
    with pytest.raises(UsageError, match="oneDNN"):
        choose_device(ModelConfig(), "cpu", "bf16", "torch")
    assert choose_device(ModelConfig(), "cpu", "fp32").engine == "torch"
    assert choose_device(ModelConfig(), "cpu", "fp32", resets=True).engine == "kernel"
    with pytest.raises(UsageError, match="cannot start afresh"):
        choose_device(ModelConfig(), engine="torch", resets=True)
    with pytest.raises(UsageError, match="no operator"):
        choose_device(replace(ModelConfig(), cell="gru-cho"), engine="torch")
