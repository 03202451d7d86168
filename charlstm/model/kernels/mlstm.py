"""The multiplicative LSTM over a sequence.

Forwards, with x_m the fifth block of `x` and W_m that of W:

    v_t = W_m h_{t-1}       m_t = x_m v_t       a_t = W m_t + x_t        then the LSTM's gates and states (`lstm.py`)

Backwards, da_t as in the LSTM, and from there to the step before by way of m_t, where the product gives each factor
the other one:

    dm_t     = W^T da_t                     dW   = sum_t da_t m_t^T
    dx_m     = dm_t v_t
    dv_t     = dm_t x_m                     dW_m = sum_t dv_t h_{t-1}^T
    dh_{t-1} = dy_{t-1} + W_m^T dv_t
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.lstm import remember, remember_backward
from charlstm.model.kernels.pointwise import Activation
from charlstm.model.kernels.sequence import Kernel, State, Tensors, accumulator, outer, over_time


def forward(x: Tensor, state: State, weights: Tensors, act: Activation) -> tuple[Tensor, State, Tensors]:
    gates = 4 * state[0].shape[1]
    w, w_m = weights[0][:gates].t(), weights[0][gates:].t()
    h, c = over_time(state[0], len(x)), over_time(state[1].to(accumulator(x.dtype)), len(x))
    tanh_c, v, m = (torch.empty_like(h[1:]) for _ in range(3))
    for t in range(len(x)):
        torch.mul(x[t, :, gates:], torch.mm(h[t], w_m, out=v[t]), out=m[t])
        remember(x[t, :, :gates].addmm_(m[t], w), c[t], c[t + 1], tanh_c[t], h[t + 1], act)
    return h[1:], (h[-1].clone(), c[-1].clone()), (x, h, c, tanh_c, v, m)


def backward(
    dy: Tensor, dafter: State, kept: Tensors, weights: Tensors, act: Activation
) -> tuple[Tensor, State, Tensors]:
    x, h, c, tanh_c, v, m = kept
    gates = 4 * dy.shape[2]
    w, w_m = weights[0][:gates], weights[0][gates:]
    dx, dv = torch.empty_like(x), torch.empty_like(v)
    dh, dc = dy[-1] + dafter[0], dafter[1].to(c.dtype, copy=True)
    for t in reversed(range(len(dy))):
        da, x_m = dx[t, :, :gates], x[t, :, gates:]
        remember_backward(dh, dc, x[t, :, :gates], c[t], tanh_c[t], da, act)
        dm = torch.mm(da, w, out=dh)
        torch.mul(dm, v[t], out=dx[t, :, gates:])
        torch.mul(dm, x_m, out=dv[t])
        dh = torch.addmm(dy[t - 1], dv[t], w_m, out=dh) if t else torch.mm(dv[0], w_m, out=dh)
    return dx, (dh, dc), (torch.cat([outer(dx[..., :gates], m), outer(dv, h[:-1])]),)


MLSTM = Kernel(("weight_hh",), forward, backward)
