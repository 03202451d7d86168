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

from charlstm.model.kernels.pointwise import KernelActivation, sigmoid_backward, tanh_, tanh_backward
from charlstm.model.kernels.resets import Resets
from charlstm.model.kernels.sequence import (
    Kernel,
    TensorState,
    TensorTuple,
    copy_for_accumulation,
    iterate_steps,
    iterate_steps_reversed,
    new_state_buffer,
    weight_gradient,
)


def forward(
    x: Tensor, state: TensorState, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    w, p = weights
    p_i, p_f, p_o = p.chunk(3)
    h, c = new_state_buffer(state[0].to(x.dtype), len(x)), new_state_buffer(state[1].to(x.dtype), len(x))
    carry, tanh_c = copy_for_accumulation(state[1]), torch.empty_like(h[1:])
    for a, before, c_before, c_t, tanh_c_t, h_t in iterate_steps(
        x, resets.before(h, carry), resets.before(c), c[1:], tanh_c, h[1:]
    ):
        i, f, g, o = a.addmm_(before, w.t()).chunk(4, 1)
        i.addcmul_(p_i, c_before).sigmoid_()
        f.addcmul_(p_f, c_before).sigmoid_()
        act.apply_(g)
        c_t.copy_(carry.mul_(f).addcmul_(i, g))
        o.addcmul_(p_o, c_t).sigmoid_()
        torch.mul(o, tanh_(tanh_c_t.copy_(carry)), out=h_t)
    return h[1:], (h[-1].clone(), carry), (x, h, c, tanh_c)


def backward(
    dy: Tensor, dafter: TensorState, kept: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (gates, h, c, tanh_c), (w, p) = kept, weights
    p_i, p_f, p_o = p.chunk(3)
    seen, da, dh, dc = resets.seen(c), torch.empty_like(gates), dafter[0].clone(), copy_for_accumulation(dafter[1])
    for dy_t, gates_t, before, tanh_c_t, da_t in resets.cut(
        iterate_steps_reversed(dy, gates, seen, tanh_c, da), dh, dc
    ):
        (i, f, g, o), (di, df, dg, do) = gates_t.chunk(4, 1), da_t.chunk(4, 1)
        dh.add_(dy_t)
        sigmoid_backward(torch.mul(dh, tanh_c_t, out=do), o, do)
        dc.add_(tanh_backward(dh.mul_(o), tanh_c_t, dh)).addcmul_(p_o, do)
        error = dc.to(dh.dtype)
        sigmoid_backward(torch.mul(error, g, out=di), i, di)
        sigmoid_backward(torch.mul(error, before, out=df), f, df)
        act.backward(torch.mul(error, i, out=dg), g, dg)
        dc.mul_(f).addcmul_(p_i, di).addcmul_(p_f, df)
        torch.mm(da_t, w, out=dh)
    di, df, _, do = da.chunk(4, 2)
    dp = torch.cat([(error * memory).sum((0, 1)) for error, memory in ((di, seen), (df, seen), (do, c[1:]))])
    return da, (dh, dc), (weight_gradient(da, resets.seen(h)), dp)


LSTM_PEEPHOLE = Kernel(("weight_hh", "weight_peephole"), forward, backward)
