"""The LSTM with layer normalisation over a sequence.

With LN(a) = (a - mean) / s over the units, s = sqrt(variance + eps), and n = LN(a), an error dn on n gives

    da = (dn - mean(dn) - n mean(dn n)) / s         (Ba et al. 2016, supplement)

Forwards, x_t is normalised for all steps before the loop; m_t = W h_{t-1} and c_t within it:

    a_t = gain_h LN(m_t) + gain_x LN(x_t) + b       the gates and c_t as in `lstm.py`
    k_t = gain_c LN(c_t) + b_c                      h_t = o tanh(k_t)

Backwards, from the last step to the first,

    dk_t = dh_t o (1 - tanh(k_t)^2)                 dc_t += the error that LN gives back for gain_c dk_t
    da_t as in `lstm.py`                            dm_t = what LN gives back for gain_h da_t
    dh_{t-1} = W^T dm_t  (+ dy_{t-1})

and after the loop dW = sum_t dm_t h_{t-1}^T, db = sum_t da_t, the gains' errors sum_t da_t n_t, and dx from
gain_x da_t for all steps. Normalisation is in float32 whatever the products are in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.cells import EPSILON
from charlstm.model.kernels.pointwise import KernelActivation, sigmoid_backward, tanh_, tanh_backward
from charlstm.model.kernels.resets import Resets
from charlstm.model.kernels.sequence import (
    Kernel,
    TensorState,
    TensorTuple,
    at_least_float32,
    copy_for_accumulation,
    iterate_steps,
    iterate_steps_reversed,
    new_state_buffer,
    weight_gradient,
)


def forward(
    x: Tensor, state: TensorState, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    w, bias, gain_x, gain_h, gain_c, bias_c = weights
    h, c = new_state_buffer(state[0].to(x.dtype), len(x)), new_state_buffer(at_least_float32(state[1]), len(x))
    n_x, s_x = layer_norm(x)
    gates = (n_x * gain_x + bias).to(x.dtype)
    bounded, normal = torch.empty_like(h[1:]), []
    for a, before, c_before, c_t, bounded_t, h_t in iterate_steps(
        gates, resets.before(h), resets.before(c), c[1:], bounded, h[1:]
    ):
        from_before = layer_norm(torch.mm(before, w.t()))
        a.add_(from_before[0] * gain_h)
        i, f, g, o = a.chunk(4, 1)
        a[:, : 2 * h.shape[2]].sigmoid_()
        act.apply_(g)
        o.sigmoid_()
        torch.addcmul(i * g, f, c_before, out=c_t)
        memory = layer_norm(c_t)
        torch.mul(o, tanh_(bounded_t.copy_(memory[0] * gain_c + bias_c)), out=h_t)
        normal.append((*from_before, *memory))
    kept = (gates, h, c, bounded, n_x, s_x, *map(torch.stack, zip(*normal, strict=True)))
    return h[1:], (h[-1].clone(), c[-1].clone()), kept


def backward(
    dy: Tensor, dafter: TensorState, kept: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    gates, h, c, bounded, n_x, s_x, n_m, s_m, n_c, s_c = kept
    w, _, gain_x, gain_h, gain_c, _ = weights
    da, dm, dk = torch.empty_like(gates), torch.empty_like(gates), torch.empty_like(n_c)
    dh, dc = dafter[0].clone(), copy_for_accumulation(dafter[1])
    for dy_t, gates_t, c_before, bounded_t, n_m_t, s_m_t, n_c_t, s_c_t, da_t, dm_t, dk_t in resets.cut(
        iterate_steps_reversed(dy, gates, resets.seen(c), bounded, n_m, s_m, n_c, s_c, da, dm, dk), dh, dc
    ):
        (i, f, g, o), (di, df, dg, do) = gates_t.chunk(4, 1), da_t.chunk(4, 1)
        sigmoid_backward(torch.mul(dh.add_(dy_t), bounded_t, out=do), o, do)
        dk_t.copy_(tanh_backward(dh.mul_(o), bounded_t, dh))
        dc.add_(layer_norm_backward(dk_t * gain_c, n_c_t, s_c_t))
        error = dc.to(dh.dtype)
        sigmoid_backward(torch.mul(error, g, out=di), i, di)
        sigmoid_backward(torch.mul(error, c_before.to(dh.dtype), out=df), f, df)
        act.backward(torch.mul(error, i, out=dg), g, dg)
        dc.mul_(f)
        dm_t.copy_(layer_norm_backward(da_t * gain_h, n_m_t, s_m_t))
        torch.mm(dm_t, w, out=dh)
    dx = layer_norm_backward(da * gain_x, n_x, s_x).to(gates.dtype)
    sums = [(error * n).sum((0, 1)) for error, n in ((da, n_x), (da, n_m), (dk, n_c))]
    own = (weight_gradient(dm, resets.seen(h)), at_least_float32(da).sum((0, 1)), *sums, dk.sum((0, 1)))
    return dx, (dh, dc), tuple(error.to(weight.dtype) for error, weight in zip(own, weights, strict=True))


def layer_norm(a: Tensor) -> tuple[Tensor, Tensor]:
    """a [..., M] with mean 0 and variance 1, and 1/s [..., 1]."""
    a = at_least_float32(a)
    n, _, scale = torch.native_layer_norm(a, a.shape[-1:], None, None, float(EPSILON))
    return n, scale


def layer_norm_backward(error: Tensor, n: Tensor, scale: Tensor) -> Tensor:
    """The error on a, from that on n = `normalised(a)`."""
    return (error - error.mean(-1, keepdim=True) - n * (error * n).mean(-1, keepdim=True)) * scale


LSTM_NORM = Kernel(("weight_hh", "bias_hh", "gain_ih", "gain_hh", "gain_c", "bias_c"), forward, backward)
