"""The innermost loops of `products.py` in LLVM's intermediate representation.

A word is a float, or two numbers in bfloat16. Addresses are integers, and strides count words.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from charlstm.model.kernels.panels import TileShape

BYTE, INDEX, SIZE, FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
POINTER = BYTE.as_pointer()

PREFETCH = 16
"""Words of a row ahead of the loop for which the panel is requested: the delay of a cache that cores share."""

LINE = 16
"""Words of a line of a cache."""

AMX_PREFETCH = 4
"""Blocks of a panel ahead of the loop that are requested."""

ROW_TILE, PANEL_TILE = 6, 4
"""The first of two tiles for rows, and for words of a panel. Those for sums begin at 0."""


class Bfloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """The type of LLVM, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bfloat)

    def __hash__(self) -> int:
        return hash(Bfloat)


def get_micro_kernel(module: Any, tile: TileShape, is_bfloat: bool) -> Any:
    """Return the function of a module that adds the products of a few rows with a panel to a tile of sums.

    Its arguments are those of `build_micro_kernel`. It is not inlined: elsewhere, its sums would not stay in registers.
    """
    name = f"micro_kernel_{tile.rows}_{'bfloat' if is_bfloat else 'float'}"
    function = cgutils.get_or_insert_function(module, ir.FunctionType(ir.VoidType(), [SIZE] * 5), name)
    if not function.blocks:
        function.linkage = "internal"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block())
        build_micro_kernel(builder, tile, is_bfloat, *function.args)
        builder.ret_void()
    return function


def build_micro_kernel(
    builder: Any, tile: TileShape, is_bfloat: bool, x: Any, words: Any, panel: Any, out: Any, stride: Any
) -> None:
    """Add the products of the rows at `x` with a panel to the sums at `out`."""
    width, vector = tile.lanes * tile.vectors, ir.VectorType(FLOAT, tile.lanes)
    multiply_add = build_dot_product if is_bfloat else build_multiply_add
    inputs = [move_address(builder, x, builder.mul(words, size(row))) for row in range(tile.rows)]
    outputs = [
        [
            pointer_to(builder, move_address(builder, out, builder.mul(stride, size(row)), v * tile.lanes), vector)
            for v in range(tile.vectors)
        ]
        for row in range(tile.rows)
    ]
    before = [[builder.load(each, align=4) for each in row] for row in outputs]
    entry, body, end = builder.block, builder.append_basic_block("words"), builder.append_basic_block("end")
    builder.branch(body)
    builder.position_at_end(body)
    k = builder.phi(SIZE)
    sums = [[builder.phi(vector) for _ in row] for row in before]
    weights_at = move_address(builder, panel, builder.mul(k, size(width)))
    weights = [
        builder.load(pointer_to(builder, move_address(builder, weights_at, size(v * tile.lanes)), vector), align=4)
        for v in range(tile.vectors)
    ]
    for offset in range(0, width, LINE):
        build_prefetch(builder, move_address(builder, weights_at, size(PREFETCH * width + offset)))
    after = []
    for row in range(tile.rows):
        value = build_splat(builder, pointer_to(builder, move_address(builder, inputs[row], k), FLOAT), tile.lanes)
        after.append([multiply_add(builder, value, weights[v], sums[row][v]) for v in range(tile.vectors)])
    following = builder.add(k, size(1))
    add_phi(k, (entry, size(0)), (body, following))
    for row in range(tile.rows):
        for v in range(tile.vectors):
            add_phi(sums[row][v], (entry, before[row][v]), (body, after[row][v]))
    builder.cbranch(builder.icmp_signed("<", following, words), body, end)
    builder.position_at_end(end)
    for row in range(tile.rows):
        for v in range(tile.vectors):
            builder.store(after[row][v], outputs[row][v], align=4)


def build_multiply_add(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """Return total + a b for vectors of floats, with one rounding where the processor has an instruction for it."""
    return call(builder, f"llvm.fmuladd.v{a.type.count}f32", a.type, a, b, total)


def build_dot_product(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """Return total + a_0 b_0 + a_1 b_1 for vectors of pairs of bfloat16."""
    pairs = ir.VectorType(Bfloat(), 2 * a.type.count)
    factors = [builder.bitcast(each, pairs) for each in (a, b)]
    return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", a.type, total, *factors)


def build_amx_kernel(builder: Any, row_tiles: int, x: Any, words: Any, panel: Any, out: Any, stride: Any) -> None:
    """Add the products of 16 rows, or of 32, with a panel of 32 outputs to the sums at `out`, in blocks of 16 words."""
    width, word = 32, size(4)
    x_stride, out_stride = builder.mul(words, word), builder.mul(stride, word)
    sums = [
        (2 * r + v, move_address(builder, out, builder.mul(stride, size(16 * r)), 16 * v))
        for r in range(row_tiles)
        for v in range(2)
    ]
    for tile, address in sums:
        move_tile(builder, "tileloadd64", tile, address, out_stride)
    with cgutils.for_range(builder, builder.sdiv(words, size(16))) as loop:
        block = move_address(builder, panel, builder.mul(loop.index, size(16 * width)))
        for v in range(2):
            move_tile(
                builder, "tileloadd64", PANEL_TILE + v, move_address(builder, block, size(16 * v)), size(4 * width)
            )
        for offset in range(0, 16 * width, LINE):
            build_prefetch(builder, move_address(builder, block, size(AMX_PREFETCH * 16 * width + offset)))
        for r in range(row_tiles):
            at = move_address(builder, x, builder.mul(words, size(16 * r)))
            at = move_address(builder, at, builder.mul(loop.index, size(16)))
            move_tile(builder, "tileloadd64", ROW_TILE + r, at, x_stride)
            for v in range(2):
                tiles = (ir.Constant(BYTE, tile) for tile in (2 * r + v, ROW_TILE + r, PANEL_TILE + v))
                call(builder, "llvm.x86.tdpbf16ps", ir.VoidType(), *tiles)
    for tile, address in sums:
        move_tile(builder, "tilestored64", tile, address, out_stride)


def build_amx_setup(builder: Any, address: Any) -> None:
    """Set the shapes of the tiles as the 64 bytes at the address say; without one, release the tiles."""
    if address is None:
        call(builder, "llvm.x86.tilerelease", ir.VoidType())
    else:
        call(builder, "llvm.x86.ldtilecfg", ir.VoidType(), builder.inttoptr(address, POINTER))


def move_tile(builder: Any, instruction: str, tile: int, address: Any, stride: Any) -> None:
    """Load or store a tile whose rows are `stride` bytes apart."""
    pointer = builder.inttoptr(address, POINTER)
    call(builder, f"llvm.x86.{instruction}", ir.VoidType(), ir.Constant(BYTE, tile), pointer, stride)


def build_prefetch(builder: Any, address: Any) -> None:
    read, keep, data = (ir.Constant(INDEX, number) for number in (0, 3, 1))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), builder.inttoptr(address, POINTER), read, keep, data)


def build_splat(builder: Any, pointer: Any, lanes: int) -> Any:
    """Return a vector of equal words."""
    undefined = ir.Constant(ir.VectorType(FLOAT, lanes), ir.Undefined)
    one = builder.insert_element(undefined, builder.load(pointer), ir.Constant(INDEX, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(INDEX, lanes), [0] * lanes))


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def add_phi(phi: Any, *incoming: tuple[Any, Any]) -> None:
    for block, value in incoming:
        phi.add_incoming(value, block)


def size(number: int) -> Any:
    return ir.Constant(SIZE, number)


def move_address(builder: Any, address: Any, *distances: Any) -> Any:
    """Return an address moved by a number of words."""
    for distance in distances:
        distance = size(distance) if isinstance(distance, int) else distance
        address = builder.add(address, builder.mul(distance, size(4)))
    return address


def pointer_to(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())
