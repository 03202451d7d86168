"""What torch finds on this machine, for a bug report."""

from __future__ import annotations

from collections.abc import Iterator

import torch

FEATURES = (
    "avx2", "fma3", "avx512_f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8",
    "neon", "asimd", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
"""Features of processors that decide which code runs, by torch's names."""


def list_features() -> str:
    """Return the features of this processor that decide which code runs."""
    found = torch.cpu.get_capabilities()
    return " ".join(name for name in FEATURES if found.get(name) is True) or "none of those that matter"


def describe_threads() -> str:
    """Return the number of threads and the processor that torch's own kernels are for."""
    return f"{torch.get_num_threads()} of torch, whose kernels are for {torch.backends.cpu.get_cpu_capability()}"


def list_devices() -> Iterator[str]:
    """Yield the devices that a model can be trained on."""
    yield "cpu"
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        yield f"cuda {found.name} ({found.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda})"
    if torch.backends.mps.is_available():
        yield "mps"
