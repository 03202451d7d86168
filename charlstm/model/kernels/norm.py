"""The LSTM with layer normalization over a sequence.

With LN(a) = (a - mean) / s over the units, s = sqrt(variance + eps) and n = LN(a), the gradient dn of n gives

    da = (dn - mean(dn) - n mean(dn n)) / s         (Ba et al. 2016, supplement)

Forward, x_t is normalized for all steps before the loop; m_t = W h_{t-1} and c_t within it:

    a_t = gain_h LN(m_t) + gain_x LN(x_t) + b       the gates and c_t as in `lstm.py`
    q_t = gain_c LN(c_t) + b_c                      h_t = o tanh(q_t)

Backward, from the last step to the first,

    dq_t = dh_t o (1 - tanh(q_t)^2)                 dc_t += the gradient through LN of gain_c dq_t
    da_t as in `lstm.py`                            dm_t = the gradient through LN of gain_h da_t
    dh_{t-1} = W^T dm_t  (+ dy_{t-1})

After the loop, dW = sum_t dm_t h_{t-1}^T, db = sum_t da_t, the gradients of the gains are sum_t da_t n_t, and dx is the
gradient through LN of gain_x da_t for all steps. Normalization is in float32, whatever the precision of the products.
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
    tanh_q, normalized = torch.empty_like(h[1:]), []
    for k, a, h_prev, c_prev, c_t, tanh_q_t, h_t in iterate_steps(
        resets.masks(len(x)), gates, h[:-1], c[:-1], c[1:], tanh_q, h[1:]
    ):
        if k is not None:
            h_prev, c_prev = h_prev * k, c_prev * k
        n_m, s_m = layer_norm(torch.mm(h_prev, w.t()))
        a.add_(n_m * gain_h)
        i, f, g, o = a.chunk(4, 1)
        a[:, : 2 * h.shape[2]].sigmoid_()
        act.apply_(g)
        o.sigmoid_()
        torch.addcmul(i * g, f, c_prev, out=c_t)
        n_c, s_c = layer_norm(c_t)
        torch.mul(o, tanh_(tanh_q_t.copy_(n_c * gain_c + bias_c)), out=h_t)
        normalized.append((n_m, s_m, n_c, s_c))
    saved = (gates, h, c, tanh_q, n_x, s_x, *map(torch.stack, zip(*normalized, strict=True)))
    return h[1:], (h[-1].clone(), c[-1].clone()), saved


def backward(
    dy: Tensor, dstate: TensorState, saved: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    gates, h, c, tanh_q, n_x, s_x, n_m, s_m, n_c, s_c = saved
    w, _, gain_x, gain_h, gain_c, _ = weights
    da, dm, dq = torch.empty_like(gates), torch.empty_like(gates), torch.empty_like(n_c)
    dh, dc = dstate[0].clone(), copy_for_accumulation(dstate[1])
    for k, dy_t, gates_t, c_prev, tanh_q_t, n_m_t, s_m_t, n_c_t, s_c_t, da_t, dm_t, dq_t in iterate_steps_reversed(
        resets.masks(len(dy)), dy, gates, resets.mask(c[:-1]), tanh_q, n_m, s_m, n_c, s_c, da, dm, dq
    ):
        (i, f, g, o), (di, df, dg, do) = gates_t.chunk(4, 1), da_t.chunk(4, 1)
        sigmoid_backward(torch.mul(dh.add_(dy_t), tanh_q_t, out=do), o, do)
        dq_t.copy_(tanh_backward(dh.mul_(o), tanh_q_t, dh))
        dc.add_(layer_norm_backward(dq_t * gain_c, n_c_t, s_c_t))
        dc_t = dc.to(dh.dtype)
        sigmoid_backward(torch.mul(dc_t, g, out=di), i, di)
        sigmoid_backward(torch.mul(dc_t, c_prev.to(dh.dtype), out=df), f, df)
        act.backward(torch.mul(dc_t, i, out=dg), g, dg)
        dc.mul_(f)
        dm_t.copy_(layer_norm_backward(da_t * gain_h, n_m_t, s_m_t))
        torch.mm(dm_t, w, out=dh)
        if k is not None:
            dh.mul_(k)
            dc.mul_(k)
    dx = layer_norm_backward(da * gain_x, n_x, s_x).to(gates.dtype)
    dgains = [(gradient * n).sum((0, 1)) for gradient, n in ((da, n_x), (da, n_m), (dq, n_c))]
    dw, dbias = weight_gradient(dm, resets.mask(h[:-1])), at_least_float32(da).sum((0, 1))
    dweights = (dw, dbias, *dgains, dq.sum((0, 1)))
    return dx, (dh, dc), tuple(gradient.to(weight.dtype) for gradient, weight in zip(dweights, weights, strict=True))


def layer_norm(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return a [..., M] with mean 0 and variance 1 over its last dimension, and 1/s [..., 1]."""
    a = at_least_float32(a)
    n, _, inverse_s = torch.native_layer_norm(a, a.shape[-1:], None, None, float(EPSILON))
    return n, inverse_s


def layer_norm_backward(dn: Tensor, n: Tensor, inverse_s: Tensor) -> Tensor:
    """Return the gradient of a, given that of n = LN(a)."""
    return (dn - dn.mean(-1, keepdim=True) - n * (dn * n).mean(-1, keepdim=True)) * inverse_s


LSTM_NORM = Kernel(("weight_hh", "bias_hh", "gain_ih", "gain_hh", "gain_c", "bias_c"), forward, backward)
