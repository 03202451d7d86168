"""The LSTM with peepholes over a sequence.

Forward as in `lstm.py`, except that i and f also read c_{t-1}, and o reads c_t, each unit its own, through p [3*H]:

    i = sigmoid(a_i + p_i c_{t-1})      f = sigmoid(a_f + p_f c_{t-1})      o = sigmoid(a_o + p_o c_t)

Backward, this adds three paths to the gradient of the cell state, and a gradient of p:

    dc_t     += dh_t o (1 - tanh(c_t)^2)  +  p_o da_o       after da_o, before the other gates
    dc_{t-1}  = dc_t f  +  p_i da_i  +  p_f da_f
    dp_i = sum_t da_i c_{t-1}           dp_f = sum_t da_f c_{t-1}           dp_o = sum_t da_o c_t

Gers & Schmidhuber truncate these gradients at the gates; here they are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.pointwise import KernelActivation, sigmoid_backward, tanh_, tanh_backward
from charlstm.model.kernels.product import RecurrentProduct
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
    recurrence = RecurrentProduct(w, x.shape[1])
    h, c = new_state_buffer(state[0].to(x.dtype), len(x)), new_state_buffer(state[1].to(x.dtype), len(x))
    cell_state, tanh_c = copy_for_accumulation(state[1]), torch.empty_like(h[1:])
    for k, a, h_prev, c_prev, c_t, tanh_c_t, h_t in iterate_steps(
        resets.masks(len(x)), x, h[:-1], c[:-1], c[1:], tanh_c, h[1:]
    ):
        if k is not None:
            h_prev, c_prev = h_prev * k, c_prev * k
            cell_state.mul_(k)
        i, f, g, o = recurrence.add(a, h_prev, out=a).chunk(4, 1)
        i.addcmul_(p_i, c_prev).sigmoid_()
        f.addcmul_(p_f, c_prev).sigmoid_()
        act.apply_(g)
        c_t.copy_(cell_state.mul_(f).addcmul_(i, g))
        o.addcmul_(p_o, c_t).sigmoid_()
        torch.mul(o, tanh_(tanh_c_t.copy_(cell_state)), out=h_t)
    return h[1:], (h[-1].clone(), cell_state), (x, h, c, tanh_c)


def backward(
    dy: Tensor, dstate: TensorState, saved: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (gates, h, c, tanh_c), (w, p) = saved, weights
    p_i, p_f, p_o = p.chunk(3)
    c_before, transposed = resets.mask(c[:-1]), RecurrentProduct(w.t(), gates.shape[1])
    da, dh, dc = torch.empty_like(gates), dstate[0].clone(), copy_for_accumulation(dstate[1])
    for k, dy_t, gates_t, c_prev, tanh_c_t, da_t in iterate_steps_reversed(
        resets.masks(len(dy)), dy, gates, c_before, tanh_c, da
    ):
        (i, f, g, o), (di, df, dg, do) = gates_t.chunk(4, 1), da_t.chunk(4, 1)
        dh.add_(dy_t)
        sigmoid_backward(torch.mul(dh, tanh_c_t, out=do), o, do)
        dc.add_(tanh_backward(dh.mul_(o), tanh_c_t, dh)).addcmul_(p_o, do)
        dc_t = dc.to(dh.dtype)
        sigmoid_backward(torch.mul(dc_t, g, out=di), i, di)
        sigmoid_backward(torch.mul(dc_t, c_prev, out=df), f, df)
        act.backward(torch.mul(dc_t, i, out=dg), g, dg)
        dc.mul_(f).addcmul_(p_i, di).addcmul_(p_f, df)
        transposed.multiply(da_t, out=dh)
        if k is not None:
            dh.mul_(k)
            dc.mul_(k)
    di, df, _, do = da.chunk(4, 2)
    dp = torch.cat([(gradient * cell).sum((0, 1)) for gradient, cell in ((di, c_before), (df, c_before), (do, c[1:]))])
    return da, (dh, dc), (weight_gradient(da, resets.mask(h[:-1])), dp)


LSTM_PEEPHOLE = Kernel(("weight_hh", "weight_peephole"), forward, backward)
