"""The LSTM whose gates read only the input, over a sequence. The loop has no matrix product; it is a scan.

    i = sigmoid(x_i)    f = sigmoid(x_f)    g = act(x_g)    o = sigmoid(x_o)    for all steps at once, then
    c_t = f_t c_{t-1} + i_t g_t             the scan
    h_t = o_t c_t                           for all steps at once

Backward, the scan runs from the last step to the first, on the gradient of c_t. The rest is for all steps at once:

    dc_t = dh_t o_t + f_{t+1} dc_{t+1}
    dx_o = dh c_t o (1-o)    dx_i = dc g i (1-i)    dx_f = dc c_{t-1} f (1-f)    dx_g = dc i act'(x_g)
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.pointwise import KernelActivation, sigmoid_backward
from charlstm.model.kernels.resets import Resets
from charlstm.model.kernels.sequence import (
    Kernel,
    TensorState,
    TensorTuple,
    copy_for_accumulation,
    iterate_steps,
    iterate_steps_reversed,
    new_state_buffer,
)


def forward(
    x: Tensor, state: TensorState, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    i, f, g, o = x.chunk(4, 2)
    x[..., : 2 * f.shape[2]].sigmoid_()
    act.apply_(g)
    o.sigmoid_()
    resets.mask_(f)  # enough for both passes: c_{t-1} only ever occurs as f_t c_{t-1}
    c = new_state_buffer(copy_for_accumulation(state[1]), len(x))
    torch.mul(i, g, out=c[1:])
    for f_t, c_prev, c_t in iterate_steps(f, c[:-1], c[1:]):
        c_t.addcmul_(f_t, c_prev)
    y = o * c[1:].to(o.dtype)
    return y, (y[-1].clone(), c[-1].clone()), (x, c)


def backward(
    dy: Tensor, dstate: TensorState, saved: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    gates, c = saved
    dx = torch.empty_like(gates)
    (i, f, g, o), (di, df, dg, do) = gates.chunk(4, 2), dx.chunk(4, 2)
    dh = torch.cat([dy[:-1], dy[-1:] + dstate[0]])
    sigmoid_backward(torch.mul(dh, c[1:], out=do), o, do)
    dc = torch.mul(dh, o, out=torch.empty_like(c[1:]))
    dc[-1] += dstate[1]
    for f_next, dc_next, dc_t in iterate_steps_reversed(f[1:], dc[1:], dc[:-1]):
        dc_t.addcmul_(f_next, dc_next)
    sigmoid_backward(torch.mul(dc, g, out=di), i, di)
    sigmoid_backward(torch.mul(dc, c[:-1], out=df), f, df)
    act.backward(torch.mul(dc, i, out=dg), g, dg)
    return dx, (torch.zeros_like(dstate[0]), dc[0] * f[0]), ()


LSTM_SIMPLE = Kernel((), forward, backward)
