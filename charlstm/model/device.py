"""Where the tensors are, in what precision they are multiplied, and by what."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from charlstm.config import ModelConfig
from charlstm.errors import UsageError
from charlstm.model.layers import TORCH_LAYERS, Engine

MIN_BF16_HIDDEN = 192
"""Units from which on products are most of a layer's work on a CPU."""


@dataclass(frozen=True)
class Device:
    """A torch device, the precision of its matrix products (weights are float32 in any case) and the layers' engine."""

    name: str  # cpu, cuda or mps
    precision: str  # fp32 or bf16
    engine: Engine

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which the forward pass runs."""
        return torch.autocast(self.name, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def __str__(self) -> str:
        threads = f" ({torch.get_num_threads()} threads)" if self.name == "cpu" else ""
        precision = "bfloat16" if self.precision == "bf16" else "float32"
        return f"{self.name}{threads}, {precision}, {self.engine} engine"


def choose_device(
    model: ModelConfig, device: str = "auto", precision: str = "auto", engine: str = "auto", resets: bool = False
) -> Device:
    """What `auto` comes to for this model on this machine. Raises UsageError for what is not to be had here.

    `resets`: the state starts afresh within a sequence, which torch's operators cannot do.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(n for n in there if there[n]) if device == "auto" else device
    if not there[name]:
        raise UsageError(
            f"--device {name}: this machine has none that torch can use", "--device auto takes what there is"
        )
    kind = choose_precision(model, name) if precision == "auto" else precision
    if engine == "auto":
        return Device(name, kind, "kernel" if resets else choose_engine(model, name, kind))
    if engine == "torch":
        check_torch_layer(model, name, kind, resets)
        return Device(name, kind, "torch")
    return Device(name, kind, "kernel")


def choose_precision(model: ModelConfig, device: str) -> str:
    """bf16 where the processor multiplies it natively, and on a CPU only where that is most of the work.

    Emulated it is slower than float32, and in narrow layers the products are too small a share of the time.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = device == "cpu" and cpu_has("avx512_bf16", "amx_bf16", "bf16")
    return "bf16" if native and model.hidden >= MIN_BF16_HIDDEN else "fp32"


def choose_engine(model: ModelConfig, device: str, precision: str) -> Engine:
    """torch's operators where they are ahead (benchmarks/training.py): cuDNN, and oneDNN's LSTM in float32."""
    if not has_torch_layer(model) or (device == "cpu" and (precision == "bf16" or model.cell != "lstm")):
        return "kernel"
    return "torch"


def has_torch_layer(model: ModelConfig) -> bool:
    return model.cell in TORCH_LAYERS and model.activation == "tanh" and not model.zoneout


def check_torch_layer(model: ModelConfig, device: str, precision: str, resets: bool) -> None:
    """Raises UsageError where torch has no operator for the layers."""
    if resets:
        raise UsageError(
            "--engine torch: torch's operators cannot start afresh at every document of a stream",
            "--engine kernel can, and auto takes it",
        )
    if not has_torch_layer(model):
        wanted = "zoneout" if model.zoneout else f"--cell {model.cell} with --activation {model.activation}"
        raise UsageError(
            f"--engine torch: torch has no operator for {wanted}",
            f"--engine kernel has; torch's are {', '.join(TORCH_LAYERS)} with tanh",
        )
    if model.cell == "lstm" and device == "cpu" and precision == "bf16" and not cpu_has("avx512_bw", "bf16"):
        raise UsageError(
            "--engine torch: oneDNN has no LSTM in bfloat16 for this processor",
            "--engine kernel has, or --precision fp32",
        )


def cpu_has(*capabilities: str) -> bool:
    """Whether this processor has one of these."""
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in capabilities)
