"""The device, the precision of matrix products, and the engine of the recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch

from charlstm.config import ModelConfig
from charlstm.errors import UsageError
from charlstm.model.kernels.pointwise import load_fused
from charlstm.model.layers import TORCH_LAYERS, Engine

MIN_BF16_HIDDEN = 192
"""Hidden units from which bfloat16 pays on a CPU. In narrower layers, products are too small a share of the time."""


@dataclass(frozen=True)
class Device:
    """A torch device, the precision of its matrix products, and the engine. Weights are always float32."""

    name: str  # cpu, cuda or mps
    precision: str  # fp32 or bf16
    engine: Engine

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context for the forward pass."""
        return torch.autocast(self.name, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def __str__(self) -> str:
        precision = "bfloat16" if self.precision == "bf16" else "float32"
        return f"{self.name}, {precision}, {self.engine} engine"


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Compute on this many threads of torch within the context; 0 leaves their number as it is."""
    before = torch.get_num_threads()
    if count in (0, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(
    model: ModelConfig, device: str = "auto", precision: str = "auto", engine: str = "auto", resets: bool = False
) -> Device:
    """Resolve "auto" for this model on this machine.

    Args:
        resets: whether states are reset within a window (documents), which torch's layers cannot do.

    Raises UsageError for a device, a precision or an engine that is not available here.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(n for n in available if available[n]) if device == "auto" else device
    if not available[name]:
        raise UsageError(f"--device {name}: torch finds no such device here", "--device auto takes the best available")
    chosen = choose_precision(model, name) if precision == "auto" else precision
    if engine == "auto":
        return Device(name, chosen, "kernel" if resets else choose_engine(model, name, chosen))
    if engine == "torch":
        check_torch_layer(model, name, chosen, resets)
        return Device(name, chosen, "torch")
    return Device(name, chosen, "kernel")


def choose_precision(model: ModelConfig, device: str) -> str:
    """Return bf16 where the processor multiplies it natively and, on a CPU, products dominate; else fp32.

    Emulated bfloat16 is slower than float32.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = device == "cpu" and cpu_has("avx512_bf16", "amx_bf16", "bf16")
    return "bf16" if native and model.hidden >= MIN_BF16_HIDDEN else "fp32"


def choose_engine(model: ModelConfig, device: str, precision: str) -> Engine:
    """Return "torch" where its layers are faster (benchmarks/training.py).

    They are on CUDA (cuDNN), and on a CPU without numba for an LSTM in float32 (oneDNN).
    """
    if device != "cpu":
        return "torch" if has_torch_layer(model) else "kernel"
    is_faster = has_torch_layer(model) and model.cell == "lstm" and precision == "fp32" and not load_fused()
    return "torch" if is_faster else "kernel"


def must_compile() -> bool:
    """Return whether numba has still to compile the first function for this machine, and the result can be kept."""
    if not load_fused():
        return False
    from charlstm.model.kernels.native import code_store  # imports llvmlite

    return code_store().is_empty()


def has_torch_layer(model: ModelConfig) -> bool:
    return model.cell in TORCH_LAYERS and model.activation == "tanh" and not model.zoneout


def check_torch_layer(model: ModelConfig, device: str, precision: str, resets: bool) -> None:
    """Raise UsageError if torch has no layer for this model."""
    if resets:
        raise UsageError(
            "--engine torch: torch's layers cannot reset the state at the start of a document",
            "use --engine kernel or --engine auto",
        )
    if not has_torch_layer(model):
        wanted = "zoneout" if model.zoneout else f"--cell {model.cell} with --activation {model.activation}"
        raise UsageError(
            f"--engine torch: torch has no layer for {wanted}",
            f"use --engine kernel or --engine auto; torch's layers are {', '.join(TORCH_LAYERS)} with tanh",
        )
    if model.cell == "lstm" and device == "cpu" and precision == "bf16" and not cpu_has("avx512_bw", "bf16"):
        raise UsageError(
            "--engine torch: oneDNN has no bfloat16 LSTM for this processor", "use --engine kernel or --precision fp32"
        )


def cpu_has(*capabilities: str) -> bool:
    """Return whether this processor has any of these capabilities."""
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in capabilities)
