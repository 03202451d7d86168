"""The LSTM, the GRU and Elman's network over all steps of a sequence.

The equations are those of `lstm.py`, `gru.py` and `rnn.py`. Each thread computes some of the units of some of the
sequences, from the first step to the last (`team.py`). The weights of its units then stay in the cache of its core.
Threads that share sequences wait for each other once a step.

Common arguments:
    panels: the recurrent matrix, or for the backward pass its transpose, as `fused.pack_blocks` returns it.
    inputs: what the product of step t reads, in words [2, B, words] at t mod 2: a thread may be one step ahead.
    keep: k_t as in `resets.py` [T, B], or empty if no sequence restarts.
    sums: memory for products, [G*H*B] for the G blocks of the matrix.
    part: the share of this thread, as in `team.py`.
Arrays are read and written in their own type; the arithmetic is in float32.
"""

# mypy: disable-error-code=untyped-decorator

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

from charlstm.model.kernels.compiled.arithmetic import (
    NumbaArray,
    f32,
    fast_sigmoid,
    fast_tanh,
    load_float,
    store_float,
)
from charlstm.model.kernels.compiled.products import add_product, address_of
from charlstm.model.kernels.compiled.team import wait_for_team
from charlstm.model.kernels.panels import WIDTH, WORD_BYTES
from charlstm.storage.jit import array_at, compile_inline

blocks_at = array_at(np.float32, 3)


@numba.njit(inline="always")
def own_sums(sums: NumbaArray, blocks: int, hidden: int, part: Any) -> Any:
    """Return the memory of a part, [blocks, b, units]. Parts do not overlap."""
    rows, units = part.last - part.first, part.end - part.start
    start = blocks * (part.first * hidden + rows * part.start)
    return blocks_at(address_of(sums) + start * WORD_BYTES, (blocks, rows, units))


def count_numbers(inputs: NumbaArray) -> Any:
    """Return how many numbers a row of the inputs has: one or two in each word."""


@overload(count_numbers, inline="always", strict=False)
def _count_numbers(inputs: Any) -> Any:
    if inputs.dtype == types.float32:
        return lambda inputs: inputs.shape[2]
    return lambda inputs: 2 * inputs.shape[2]


@compile_inline
def kept(keep: NumbaArray, t: int, b: int) -> Any:
    """Return k_t of a sequence as a float, 1 after the last step."""
    return f32(0) if len(keep) > t and not keep[t, b] else f32(1)


@compile_inline
def clear(a: NumbaArray) -> None:
    for k in range(a.size):
        store_float(a, k, f32(0))


@compile_inline
def multiply_panels(panels: NumbaArray, inputs: NumbaArray, t: int, part: Any, product: NumbaArray) -> None:
    """Add the products with the units of a part, of each of G blocks, to `product` [G, b, units]."""
    blocks, rows, units = product.shape
    words = inputs.shape[2]
    x = address_of(inputs) + ((t % 2) * inputs.shape[1] + part.first) * words * WORD_BYTES
    for block in range(blocks):
        panel = block * (len(panels) // blocks) + part.start // WIDTH
        add_product(panels, panel, units, x, rows, address_of(product) + block * rows * units * WORD_BYTES)


# The functions of a row take the index of its first element after each array.


@compile_inline
def lstm_row(
    units: int, gates: NumbaArray, a: int, n: int, product: NumbaArray, m: int, block: int,
    c: NumbaArray, h: NumbaArray, after: int, tanh_c: NumbaArray, now: int, cell_state: NumbaArray, own: int,
    k_t: Any, inputs: NumbaArray, word: int, k_next: Any,
) -> None:  # fmt: skip
    for k in range(units):
        i = fast_sigmoid(load_float(gates, a + k) + load_float(product, m + k))
        f = fast_sigmoid(load_float(gates, a + n + k) + load_float(product, m + block + k))
        g = fast_tanh(load_float(gates, a + 2 * n + k) + load_float(product, m + 2 * block + k))
        o = fast_sigmoid(load_float(gates, a + 3 * n + k) + load_float(product, m + 3 * block + k))
        c_k = f * k_t * load_float(cell_state, own + k) + i * g
        tanh_c_k = fast_tanh(c_k)
        h_k = o * tanh_c_k
        store_float(gates, a + k, i)
        store_float(gates, a + n + k, f)
        store_float(gates, a + 2 * n + k, g)
        store_float(gates, a + 3 * n + k, o)
        store_float(cell_state, own + k, c_k)
        store_float(c, after + k, c_k)
        store_float(tanh_c, now + k, tanh_c_k)
        store_float(h, after + k, h_k)
        store_float(inputs, word + k, k_next * h_k)


@compile_inline
def lstm_forward(
    part: Any, h: NumbaArray, x: NumbaArray, c: NumbaArray, tanh_c: NumbaArray, cell_state: NumbaArray,
    panels: NumbaArray, inputs: NumbaArray, keep: NumbaArray, sums: NumbaArray,
) -> None:  # fmt: skip
    """Compute `lstm.forward`: x becomes the gates; writes h, c and tanh(c) of all steps, and the last cell state."""
    steps, batch, n = tanh_c.shape
    rows, units, numbers = part.last - part.first, part.end - part.start, count_numbers(inputs)
    product = own_sums(sums, 4, n, part)
    for t in range(steps):
        clear(product)
        multiply_panels(panels, inputs, t, part, product)
        for b in range(part.first, part.last):
            now = (t * batch + b) * n + part.start
            lstm_row(
                units, x, (t * batch + b) * 4 * n + part.start, n, product, (b - part.first) * units, rows * units,
                c, h, now + batch * n, tanh_c, now, cell_state, b * n + part.start,
                kept(keep, t, b), inputs, ((t + 1) % 2 * batch + b) * numbers + part.start, kept(keep, t + 1, b),
            )  # fmt: skip
        wait_for_team(part.barrier)


@compile_inline
def lstm_row_backward(
    units: int, dy: NumbaArray, now: int, gates: NumbaArray, a: int, n: int,
    c: NumbaArray, tanh_c: NumbaArray, k_t: Any, da: NumbaArray, dh: NumbaArray, m: int, dc: NumbaArray, own: int,
    inputs: NumbaArray, word: int,
) -> None:  # fmt: skip
    for k in range(units):
        i, f = load_float(gates, a + k), load_float(gates, a + n + k)
        g, o = load_float(gates, a + 2 * n + k), load_float(gates, a + 3 * n + k)
        t = load_float(tanh_c, now + k)
        dh_k = load_float(dh, m + k) + load_float(dy, now + k)
        dc_k = load_float(dc, own + k) + dh_k * o * (f32(1) - t * t)
        da_i = dc_k * g * i * (f32(1) - i)
        da_f = k_t * dc_k * load_float(c, now + k) * f * (f32(1) - f)
        da_g = dc_k * i * (f32(1) - g * g)
        da_o = dh_k * t * o * (f32(1) - o)
        store_float(da, a + k, da_i)
        store_float(da, a + n + k, da_f)
        store_float(da, a + 2 * n + k, da_g)
        store_float(da, a + 3 * n + k, da_o)
        store_float(inputs, word + k, da_i)
        store_float(inputs, word + n + k, da_f)
        store_float(inputs, word + 2 * n + k, da_g)
        store_float(inputs, word + 3 * n + k, da_o)
        store_float(dc, own + k, k_t * dc_k * f)
        store_float(dh, m + k, f32(0))


@compile_inline
def lstm_backward(
    part: Any, dh: NumbaArray, dy: NumbaArray, gates: NumbaArray, c: NumbaArray, tanh_c: NumbaArray, da: NumbaArray,
    dc: NumbaArray, panels: NumbaArray, inputs: NumbaArray, keep: NumbaArray, sums: NumbaArray,
) -> None:  # fmt: skip
    """Compute `lstm.backward` without the gradient of W. The gradients of the states become those of the first ones."""
    steps, batch, n = dy.shape
    units, numbers = part.end - part.start, count_numbers(inputs)
    own = own_sums(sums, 1, n, part)
    copy_own(own, dh, part, True)
    for t in range(steps - 1, -1, -1):
        for b in range(part.first, part.last):
            now, at = (t * batch + b) * n + part.start, (t * batch + b) * 4 * n + part.start
            lstm_row_backward(
                units, dy, now, gates, at, n, c, tanh_c, kept(keep, t, b), da, own, (b - part.first) * units,
                dc, b * n + part.start, inputs, (t % 2 * batch + b) * numbers + part.start,
            )  # fmt: skip
        wait_for_team(part.barrier)
        multiply_panels(panels, inputs, t, part, own)
        reset_own(own, keep, t, part)
    copy_own(own, dh, part, False)


@compile_inline
def copy_own(own: NumbaArray, dh: NumbaArray, part: Any, is_read: bool) -> None:
    """Copy the gradients of the states of a part [B, H] to `own` [1, b, units], or back."""
    rows, units, hidden = own.shape[1], own.shape[2], dh.shape[1]
    for b in range(rows):
        at = (part.first + b) * hidden + part.start
        for k in range(units):
            if is_read:
                store_float(own, b * units + k, load_float(dh, at + k))
            else:
                store_float(dh, at + k, load_float(own, b * units + k))


@compile_inline
def reset_own(own: NumbaArray, keep: NumbaArray, t: int, part: Any) -> None:
    """Multiply the gradients of the states before step t by k_t."""
    if len(keep) > 0:
        units = own.shape[2]
        for b in range(own.shape[1]):
            k_t = kept(keep, t, part.first + b)
            for k in range(units):
                store_float(own, b * units + k, k_t * load_float(own, b * units + k))


@compile_inline
def set_to_bias(product: NumbaArray, bias: NumbaArray, start: int) -> None:
    """Set `product` [G, b, units] to the parts of a bias [G*H]."""
    blocks, rows, units = product.shape
    for block in range(blocks):
        for b in range(rows):
            for k in range(units):
                bias_k = load_float(bias, block * (len(bias) // blocks) + start + k)
                store_float(product, (block * rows + b) * units + k, bias_k)


@compile_inline
def gru_row(
    units: int, gates: NumbaArray, a: int, n: int, product: NumbaArray, m: int, block: int,
    m_n: NumbaArray, now: int, h: NumbaArray, after: int, hidden: NumbaArray, own: int,
    k_t: Any, inputs: NumbaArray, word: int, k_next: Any,
) -> None:  # fmt: skip
    for k in range(units):
        m_k = load_float(product, m + 2 * block + k)
        r = fast_sigmoid(load_float(gates, a + k) + load_float(product, m + k))
        z = fast_sigmoid(load_float(gates, a + n + k) + load_float(product, m + block + k))
        n_k = fast_tanh(load_float(gates, a + 2 * n + k) + r * m_k)
        h_k = n_k + z * (k_t * load_float(hidden, own + k) - n_k)
        store_float(gates, a + k, r)
        store_float(gates, a + n + k, z)
        store_float(gates, a + 2 * n + k, n_k)
        store_float(m_n, now + k, m_k)
        store_float(h, after + k, h_k)
        store_float(hidden, own + k, h_k)
        store_float(inputs, word + k, k_next * h_k)


@compile_inline
def gru_forward(
    part: Any, h: NumbaArray, x: NumbaArray, m_n: NumbaArray, hidden: NumbaArray, bias: NumbaArray,
    panels: NumbaArray, inputs: NumbaArray, keep: NumbaArray, sums: NumbaArray,
) -> None:  # fmt: skip
    """Compute `gru.gru_forward`: x becomes the gates; writes m_n and h of all steps, and the last state."""
    steps, batch, n = m_n.shape
    rows, units, numbers = part.last - part.first, part.end - part.start, count_numbers(inputs)
    product = own_sums(sums, 3, n, part)
    for t in range(steps):
        set_to_bias(product, bias, part.start)
        multiply_panels(panels, inputs, t, part, product)
        for b in range(part.first, part.last):
            now = (t * batch + b) * n + part.start
            gru_row(
                units, x, (t * batch + b) * 3 * n + part.start, n, product, (b - part.first) * units, rows * units,
                m_n, now, h, now + batch * n, hidden, b * n + part.start,
                kept(keep, t, b), inputs, ((t + 1) % 2 * batch + b) * numbers + part.start, kept(keep, t + 1, b),
            )  # fmt: skip
        wait_for_team(part.barrier)


@compile_inline
def gru_row_backward(
    units: int, dy: NumbaArray, now: int, gates: NumbaArray, a: int, n: int, h: NumbaArray, m_n: NumbaArray, k_t: Any,
    dm: NumbaArray, da_n: NumbaArray, dh: NumbaArray, m: int, inputs: NumbaArray, word: int,
) -> None:  # fmt: skip
    for k in range(units):
        r, z, n_k = load_float(gates, a + k), load_float(gates, a + n + k), load_float(gates, a + 2 * n + k)
        dh_k = load_float(dh, m + k) + load_float(dy, now + k)
        da_k = dh_k * (f32(1) - z) * (f32(1) - n_k * n_k)
        dm_r = da_k * load_float(m_n, now + k) * r * (f32(1) - r)
        dm_z = dh_k * (k_t * load_float(h, now + k) - n_k) * z * (f32(1) - z)
        dm_n = da_k * r
        store_float(dm, a + k, dm_r)
        store_float(dm, a + n + k, dm_z)
        store_float(dm, a + 2 * n + k, dm_n)
        store_float(da_n, now + k, da_k)
        store_float(inputs, word + k, dm_r)
        store_float(inputs, word + n + k, dm_z)
        store_float(inputs, word + 2 * n + k, dm_n)
        store_float(dh, m + k, dh_k * z)


@compile_inline
def gru_backward(
    part: Any, dh: NumbaArray, dy: NumbaArray, gates: NumbaArray, h: NumbaArray, m_n: NumbaArray, dm: NumbaArray,
    da_n: NumbaArray, panels: NumbaArray, inputs: NumbaArray, keep: NumbaArray, sums: NumbaArray,
) -> None:  # fmt: skip
    """Compute `gru.gru_backward` without the gradients of W and b. `dh` becomes the gradient of the first state."""
    steps, batch, n = dy.shape
    units, numbers = part.end - part.start, count_numbers(inputs)
    own = own_sums(sums, 1, n, part)
    copy_own(own, dh, part, True)
    for t in range(steps - 1, -1, -1):
        for b in range(part.first, part.last):
            now, at = (t * batch + b) * n + part.start, (t * batch + b) * 3 * n + part.start
            gru_row_backward(
                units, dy, now, gates, at, n, h, m_n, kept(keep, t, b), dm, da_n, own, (b - part.first) * units,
                inputs, (t % 2 * batch + b) * numbers + part.start,
            )  # fmt: skip
        wait_for_team(part.barrier)
        multiply_panels(panels, inputs, t, part, own)
        reset_own(own, keep, t, part)
    copy_own(own, dh, part, False)


@compile_inline
def elman_row(
    units: int, x: NumbaArray, now: int, product: NumbaArray, m: int, h: NumbaArray, after: int,
    inputs: NumbaArray, word: int, k_next: Any,
) -> None:  # fmt: skip
    for k in range(units):
        h_k = fast_tanh(load_float(x, now + k) + load_float(product, m + k))
        store_float(h, after + k, h_k)
        store_float(inputs, word + k, k_next * h_k)


@compile_inline
def elman_forward(
    part: Any, h: NumbaArray, x: NumbaArray, panels: NumbaArray, inputs: NumbaArray, keep: NumbaArray, sums: NumbaArray
) -> None:
    """Compute `rnn.elman_forward`: writes h of all steps."""
    steps, batch, n = x.shape
    units, numbers = part.end - part.start, count_numbers(inputs)
    product = own_sums(sums, 1, n, part)
    for t in range(steps):
        clear(product)
        multiply_panels(panels, inputs, t, part, product)
        for b in range(part.first, part.last):
            now = (t * batch + b) * n + part.start
            elman_row(
                units, x, now, product, (b - part.first) * units, h, now + batch * n,
                inputs, ((t + 1) % 2 * batch + b) * numbers + part.start, kept(keep, t + 1, b),
            )  # fmt: skip
        wait_for_team(part.barrier)


@compile_inline
def elman_row_backward(
    units: int, dy: NumbaArray, da: NumbaArray, now: int, h: NumbaArray, after: int, dh: NumbaArray, m: int,
    inputs: NumbaArray, word: int,
) -> None:  # fmt: skip
    for k in range(units):
        h_k = load_float(h, after + k)
        da_k = (load_float(dh, m + k) + load_float(dy, now + k)) * (f32(1) - h_k * h_k)
        store_float(da, now + k, da_k)
        store_float(inputs, word + k, da_k)
        store_float(dh, m + k, f32(0))


@compile_inline
def elman_backward(
    part: Any, dh: NumbaArray, dy: NumbaArray, h: NumbaArray, da: NumbaArray,
    panels: NumbaArray, inputs: NumbaArray, keep: NumbaArray, sums: NumbaArray,
) -> None:  # fmt: skip
    """Compute `rnn.elman_backward` without the gradient of W. `dh` becomes the gradient of the first state."""
    steps, batch, n = dy.shape
    units, numbers = part.end - part.start, count_numbers(inputs)
    own = own_sums(sums, 1, n, part)
    copy_own(own, dh, part, True)
    for t in range(steps - 1, -1, -1):
        for b in range(part.first, part.last):
            now = (t * batch + b) * n + part.start
            elman_row_backward(
                units, dy, da, now, h, now + batch * n, own, (b - part.first) * units,
                inputs, (t % 2 * batch + b) * numbers + part.start,
            )  # fmt: skip
        wait_for_team(part.barrier)
        multiply_panels(panels, inputs, t, part, own)
        reset_own(own, keep, t, part)
    copy_own(own, dh, part, False)
