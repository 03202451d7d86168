"""The product of a few rows with the same matrix at every step of a sequence, compiled by numba.

A general product first copies the matrix into an order in which it is read from one end to the other. With 16 rows that
takes as long as a third of the product, and a sequence would do it at every step. Here it is done once per sequence:
the matrix is stored in panels, and the innermost loop is the micro-kernel of Van Zee and van de Geijn 2015 (BLIS): it
keeps the sums of a few rows and one panel in registers while it reads the panel once. Every sum is added up in the
order of the columns, so a result does not depend on the number of rows or threads.

Rows and panels consist of words of 32 bits: a float, or the bfloat16 of two neighboring columns where the processor
multiplies them (AVX512-BF16 and AMX of x86). Sums are float32.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic, overload
from torch import Tensor
from torch.nn.functional import pad

from charlstm.model.kernels.arithmetic import NumbaArray
from charlstm.model.kernels.micro_kernels import TileShape, build_amx_kernel, build_amx_setup, get_micro_kernel
from charlstm.storage.jit import compile_inline


def find_cpu_features() -> set[str]:
    """Return the features of the processor that numba compiles for: this one, unless NUMBA_CPU_FEATURES is set."""
    if chosen := numba.config.CPU_FEATURES:
        return {name[1:] for name in chosen.split(",") if name.startswith("+")}
    return {name for name, is_present in binding.get_host_cpu_features().items() if is_present}


def find_cpu_name() -> str:
    return str(numba.config.CPU_NAME or binding.get_host_cpu_name())


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


def add_product(panels: NumbaArray, first: int, outputs: int, x: int, rows: int, out: int) -> None:
    """Add x W^T to `out`, for some rows of W.

    Args:
        panels: those of W [M, N].
        first: the panel of the first of these rows of W.
        outputs: the number of these rows of W.
        x: address of the inputs [rows, words].
        rows: B.
        out: address of the sums [rows, outputs].
    """


@overload(add_product, inline="always", strict=False)
def _add_product(panels: Any, first: Any, outputs: Any, x: Any, rows: Any, out: Any) -> Any:
    if panels.ndim == 4:
        return lambda panels, first, outputs, x, rows, out: add_amx_product(panels, first, outputs, x, rows, out)
    return lambda panels, first, outputs, x, rows, out: add_vector_product(panels, first, outputs, x, rows, out)


@compile_inline
def add_vector_product(panels: NumbaArray, first: int, outputs: int, x: int, rows: int, out: int) -> None:
    """Compute `add_product` with vector instructions."""
    words = panels.shape[1]
    tile = np.empty((TILE.rows, WIDTH), np.float32)
    panel = address_of(panels) + first * words * WIDTH * WORD_BYTES
    for start in range(0, outputs, WIDTH):
        width = min(outputs - start, WIDTH)
        row = 0
        while row < rows:
            count = choose_rows(rows - row)
            at, to = x + row * words * WORD_BYTES, out + (row * outputs + start) * WORD_BYTES
            if width == WIDTH:
                add_tile(panels, count, at, words, panel, to, outputs)
            else:
                copy_block(to, outputs, address_of(tile), WIDTH, count, width)
                add_tile(panels, count, at, words, panel, address_of(tile), WIDTH)
                copy_block(address_of(tile), WIDTH, to, outputs, count, width)
            row += count
        panel += words * WIDTH * WORD_BYTES


@compile_inline
def add_amx_product(panels: NumbaArray, first: int, outputs: int, x: int, rows: int, out: int) -> None:
    """Compute `add_product` with tiles of AMX."""
    words = panels.shape[1] * AMX_WORDS
    tile, setup = np.empty((2 * AMX_ROWS, WIDTH), np.float32), np.zeros(64, np.uint8)
    for row in range(0, rows, 2 * AMX_ROWS):
        count = min(rows - row, 2 * AMX_ROWS)
        configure_tiles(setup, min(count, AMX_ROWS), max(count - AMX_ROWS, 1))
        at = x + row * words * WORD_BYTES
        panel = address_of(panels) + first * words * WIDTH * WORD_BYTES
        for start in range(0, outputs, WIDTH):
            width = min(outputs - start, WIDTH)
            to, stride = out + (row * outputs + start) * WORD_BYTES, outputs
            if width < WIDTH:
                copy_block(to, outputs, address_of(tile), WIDTH, count, width)
                to, stride = address_of(tile), WIDTH
            if count > AMX_ROWS:
                add_amx_tiles_32(at, words, panel, to, stride)
            else:
                add_amx_tiles_16(at, words, panel, to, stride)
            if width < WIDTH:
                copy_block(to, WIDTH, out + (row * outputs + start) * WORD_BYTES, outputs, count, width)
            panel += words * WIDTH * WORD_BYTES
    release_tiles()


@compile_inline
def copy_block(source: int, source_stride: int, target: int, target_stride: int, rows: int, width: int) -> None:
    """Copy words between blocks, given their addresses and the distances between their rows."""
    for row in range(rows):
        for k in range(width):
            copy_word(source + (row * source_stride + k) * WORD_BYTES, target + (row * target_stride + k) * WORD_BYTES)


@intrinsic
def copy_word(_context: Any, source: Any, target: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        first, second = (builder.inttoptr(address, ir.IntType(32).as_pointer()) for address in arguments)
        builder.store(builder.load(first), second)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@compile_inline
def choose_rows(remaining: int) -> int:
    """Return for how many of the remaining rows to call the micro-kernel next."""
    if remaining >= TILE.rows:
        return TILE.rows
    return 4 if remaining >= 4 else 2 if remaining >= 2 else 1


def make_micro_kernel(rows: int) -> Any:
    """Return the micro-kernel for this many rows: it adds their products with one panel to `out`.

    Its arguments are the panels, for their type; the addresses of the rows, of the panel and of the outputs; and after
    that of the rows their length, after that of the outputs the distance between their rows, both in words.
    """

    @intrinsic
    def micro_kernel(_context: Any, panels: Any, x: Any, words: Any, panel: Any, out: Any, stride: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            is_bfloat = panels.dtype != types.float32
            builder.call(get_micro_kernel(builder.module, TILE._replace(rows=rows), is_bfloat), arguments[1:])
            return context.get_dummy_value()

        return types.void(panels, *[types.intp] * 5), generate

    return micro_kernel


add_8_rows, add_4_rows, add_2_rows, add_1_row = (make_micro_kernel(rows) for rows in (8, 4, 2, 1))


@compile_inline
def add_tile(panels: NumbaArray, rows: int, x: int, words: int, panel: int, out: int, stride: int) -> None:
    if rows == 8:
        add_8_rows(panels, x, words, panel, out, stride)
    elif rows == 4:
        add_4_rows(panels, x, words, panel, out, stride)
    elif rows == 2:
        add_2_rows(panels, x, words, panel, out, stride)
    else:
        add_1_row(panels, x, words, panel, out, stride)


def make_amx_kernel(tiles: int) -> Any:
    """Return the micro-kernel of AMX for this many tiles of rows, with the last five of the arguments above."""

    @intrinsic
    def amx_kernel(_context: Any, x: Any, words: Any, panel: Any, out: Any, stride: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            build_amx_kernel(builder, tiles, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), generate

    return amx_kernel


add_amx_tiles_16, add_amx_tiles_32 = (make_amx_kernel(tiles) for tiles in (1, 2))


@compile_inline
def configure_tiles(setup: NumbaArray, low: int, high: int) -> None:
    """Set the rows of the tiles: 0 to 3 hold sums, 4 and 5 words of a panel, 6 and 7 words of the rows."""
    setup[0] = 1
    for tile in range(8):
        setup[16 + 2 * tile] = AMX_WORDS * WORD_BYTES
        setup[48 + tile] = AMX_ROWS
    setup[48] = setup[49] = setup[54] = low
    setup[50] = setup[51] = setup[55] = high
    load_tile_setup(address_of(setup))


@intrinsic
def load_tile_setup(_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        build_amx_setup(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def release_tiles(_context: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        build_amx_setup(builder, None)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def address_of(_context: Any, array: Any) -> Any:
    """Return the address of the first element of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.intp(array), generate
