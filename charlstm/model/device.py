"""Where the tensors are and in what precision they are multiplied."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from charlstm.errors import UsageError


@dataclass(frozen=True)
class Device:
    """A torch device and the precision of its matrix products; weights are float32 in any case."""

    name: str  # cpu, cuda or mps
    precision: str  # fp32 or bf16

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which the forward pass runs."""
        return torch.autocast(self.name, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def __str__(self) -> str:
        threads = f" ({torch.get_num_threads()} threads)" if self.name == "cpu" else ""
        return f"{self.name}{threads}, {'bfloat16' if self.precision == 'bf16' else 'float32'}"


def choose(device: str, precision: str) -> Device:
    """What `auto` comes to on this machine. Raises UsageError for a device that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(n for n in there if there[n]) if device == "auto" else device
    if not there[name]:
        raise UsageError(
            f"--device {name}: this machine has none that torch can use", "--device auto takes what there is"
        )
    return Device(name, fastest_precision(name) if precision == "auto" else precision)


def fastest_precision(device: str) -> str:
    """bf16 where the processor multiplies it natively; where it does not, emulation is slower than float32."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device == "cpu" and native_bf16() else "fp32"


def native_bf16() -> bool:
    """Whether this CPU has AVX512-BF16 or AMX-BF16, or the Arm equivalent."""
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
