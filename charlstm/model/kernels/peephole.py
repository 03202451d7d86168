"""The LSTM with peepholes over a sequence.

Forwards as in `lstm.py`, but that i and f see c_{t-1}, and o sees c_t, each unit its own, through p [3*H]:

    i = sigmoid(a_i + p_i c_{t-1})      f = sigmoid(a_f + p_f c_{t-1})      o = sigmoid(a_o + p_o c_t)

Backwards, that gives the error on the cell state three more ways, and p a gradient:

    dc_t     += dh_t o (1 - tanh(c_t)^2)  +  p_o da_o       after da_o, before the other gates
    dc_{t-1}  = dc_t f  +  p_i da_i  +  p_f da_f
    dp_i = sum_t da_i c_{t-1}           dp_f = sum_t da_f c_{t-1}           dp_o = sum_t da_o c_t

Gers & Schmidhuber cut these errors off at the gates; here they are whole, as gradients are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.pointwise import Activation, sigmoid_backward, tanh_, tanh_backward
from charlstm.model.kernels.sequence import Kernel, State, Tensors, accumulator, outer, over_time


def forward(x: Tensor, state: State, weights: Tensors, act: Activation) -> tuple[Tensor, State, Tensors]:
    w, p = weights
    p_i, p_f, p_o = p.chunk(3)
    h, c = over_time(state[0], len(x)), over_time(state[1].to(accumulator(x.dtype)), len(x))
    tanh_c = torch.empty_like(h[1:])
    for t in range(len(x)):
        a = x[t].addmm_(h[t], w.t())
        i, f, g, o = a.chunk(4, 1)
        i.addcmul_(p_i, c[t].to(a.dtype)).sigmoid_()
        f.addcmul_(p_f, c[t].to(a.dtype)).sigmoid_()
        act.apply_(g)
        torch.mul(f, c[t], out=c[t + 1]).addcmul_(i, g)
        o.addcmul_(p_o, c[t + 1].to(a.dtype)).sigmoid_()
        torch.mul(o, tanh_(tanh_c[t].copy_(c[t + 1])), out=h[t + 1])
    return h[1:], (h[-1].clone(), c[-1].clone()), (x, h, c, tanh_c)


def backward(
    dy: Tensor, dafter: State, kept: Tensors, weights: Tensors, act: Activation
) -> tuple[Tensor, State, Tensors]:
    (gates, h, c, tanh_c), (w, p) = kept, weights
    p_i, p_f, p_o = p.chunk(3)
    da = torch.empty_like(gates)
    dh, dc = dy[-1] + dafter[0], dafter[1].to(c.dtype, copy=True)
    for t in reversed(range(len(dy))):
        (i, f, g, o), (di, df, dg, do) = gates[t].chunk(4, 1), da[t].chunk(4, 1)
        sigmoid_backward(dh * tanh_c[t], o, do)
        dc.add_(tanh_backward(dh.mul_(o), tanh_c[t], dh)).addcmul_(p_o, do)
        sigmoid_backward(dc * g, i, di)
        sigmoid_backward(dc * c[t], f, df)
        act.backward(dc * i, g, dg)
        dc.mul_(f).addcmul_(p_i, di).addcmul_(p_f, df)
        dh = torch.addmm(dy[t - 1], da[t], w, out=dh) if t else torch.mm(da[0], w, out=dh)
    di, df, _, do = da.chunk(4, 2)
    dp = torch.cat([(error * seen).sum((0, 1)) for error, seen in ((di, c[:-1]), (df, c[:-1]), (do, c[1:]))])
    return da, (dh, dc), (outer(da, h[:-1]), dp.to(p.dtype))


LSTM_PEEPHOLE = Kernel(("weight_hh", "weight_peephole"), forward, backward)
