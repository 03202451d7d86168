"""A matrix in panels: the order in which the product of a few rows with it reads it (`compiled/products.py`).

Rows and panels consist of words of 32 bits: a float, or the bfloat16 of two neighboring columns where the processor
multiplies them (AVX512-BF16 and AMX of x86).
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from typing import NamedTuple

import torch
from llvmlite import binding
from torch import Tensor
from torch.nn.functional import pad


class TileShape(NamedTuple):
    """What the micro-kernel keeps in registers: the sums of `rows` rows and `vectors` vectors of `lanes` floats."""

    lanes: int
    vectors: int
    rows: int


def find_cpu_features() -> set[str]:
    """Return the features of the processor that numba compiles for: this one, unless NUMBA_CPU_FEATURES is set."""
    if chosen := os.environ.get("NUMBA_CPU_FEATURES"):
        return {name[1:] for name in chosen.split(",") if name.startswith("+")}
    return {name for name, is_present in binding.get_host_cpu_features().items() if is_present}


def find_cpu_name() -> str:
    return os.environ.get("NUMBA_CPU_NAME") or str(binding.get_host_cpu_name())


CPU = find_cpu_features()

WORD_BYTES = 4
"""Bytes of a word."""

AMX_ROWS, AMX_WORDS, AMX_WIDTH = 16, 16, 32
"""The most rows and words of a tile of AMX, and the outputs of two."""

SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA = 158, 0x1023, 18  # asm/prctl.h


def choose_tile() -> TileShape:
    """Return a tile that fits in the registers: there are 32 with AVX-512 and on Arm, 16 on other x86 processors."""
    if "avx512f" in CPU:
        return TileShape(16, 2, 8)
    if "avx" in CPU:
        return TileShape(8, 2, 4)
    return TileShape(4, 2, 8 if "neon" in CPU else 4)


TILE = choose_tile()

WIDTH = TILE.lanes * TILE.vectors
"""Outputs of a panel."""


def request_amx() -> bool:
    """Return whether Linux lets this process use the tiles of AMX, which it has to ask for."""
    if sys.platform == "linux" and "amx-bf16" in CPU and WIDTH == AMX_WIDTH:
        with suppress(AttributeError, OSError):
            return bool(ctypes.CDLL(None).syscall(SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0)
    return False


HAS_AMX = request_amx()

HAS_BF16 = HAS_AMX or ("avx512bf16" in CPU and WIDTH == AMX_WIDTH and find_cpu_name().startswith("znver"))
"""Without AMX, Intel's processors multiply pairs of bfloat16 more slowly than floats: on a core of a Sapphire Rapids,
the product of 16 rows of 384 columns for 1,536 outputs reaches 83 GFLOP/s and 130."""


def pack(w: Tensor) -> Tensor:
    """Return a matrix [M, N] in panels, padded with zeros.

    In float32, and in bfloat16 on a processor that does not multiply it, they are floats [ceil(M / WIDTH), N, WIDTH].
    Else they are pairs of bfloat16, uint32 [ceil(M / WIDTH), ceil(N / 2), WIDTH]; for AMX
    [ceil(M / WIDTH), ceil(N / 32), 16, WIDTH].
    """
    rows, columns = w.shape
    if w.dtype == torch.float32 or not HAS_BF16:
        w = pad(w, (0, 0, 0, -rows % WIDTH)) if rows % WIDTH else w
        return w.reshape(-1, WIDTH, columns).transpose(1, 2).float().contiguous()
    unit = 2 * AMX_WORDS if HAS_AMX else 2
    if rows % WIDTH or columns % unit:
        w = pad(w, (0, -columns % unit, 0, -rows % WIDTH))
    pairs = w.contiguous().view(torch.uint32)
    panels = pairs.view(torch.int32).reshape(-1, WIDTH, pairs.shape[1]).transpose(1, 2).contiguous().view(torch.uint32)
    return panels.view(len(panels), -1, AMX_WORDS, WIDTH) if HAS_AMX else panels


def count_words(panels: Tensor) -> int:
    """Return the number of words of a row that is multiplied with these panels."""
    return panels[0].numel() // WIDTH
