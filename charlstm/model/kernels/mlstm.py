"""The multiplicative LSTM over a sequence.

Forwards, with x_m the fifth block of `x` and W_m that of W:

    v_t = W_m h_{t-1}       m_t = x_m v_t       a_t = W m_t + x_t        then the LSTM's gates and states (`lstm.py`)

Backwards, da_t as in the LSTM, and from there to the step before by way of m_t, where the product gives each factor
the other one:

    dm_t     = W^T da_t                     dW   = sum_t da_t m_t^T
    dx_m     = dm_t v_t
    dv_t     = dm_t x_m                     dW_m = sum_t dv_t h_{t-1}^T
    dh_{t-1} = W_m^T dv_t  (+ dy_{t-1})
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.lstm import choose_pointwise
from charlstm.model.kernels.pointwise import KernelActivation
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
    gates = 4 * state[0].shape[1]
    w, w_m = weights[0][:gates].t(), weights[0][gates:].t()
    h, c = new_state_buffer(state[0].to(x.dtype), len(x)), new_state_buffer(state[1].to(x.dtype), len(x))
    carry, tanh_c, v, m = copy_for_accumulation(state[1]), *(torch.empty_like(h[1:]) for _ in range(3))
    a, x_m = x[..., :gates], x[..., gates:]
    see, remember, _ = choose_pointwise(a, act)
    memory = see(carry)
    for a_t, x_m_t, v_t, m_t, before, *places in iterate_steps(
        a, x_m, v, m, resets.before(h, carry), *map(see, (a, c[1:], tanh_c, h[1:]))
    ):
        torch.mul(x_m_t, torch.mm(before, w_m, out=v_t), out=m_t)
        a_t.addmm_(m_t, w)
        remember(*places, memory)
    return h[1:], (h[-1].clone(), carry), (x, h, c, tanh_c, v, m)


def backward(
    dy: Tensor, dafter: TensorState, kept: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    x, h, c, tanh_c, v, m = kept
    gates = 4 * dy.shape[2]
    w, w_m = weights[0][:gates], weights[0][gates:]
    dx, dv, dh, dc = torch.empty_like(x), torch.empty_like(v), dafter[0].clone(), copy_for_accumulation(dafter[1])
    da, dx_m = dx[..., :gates], dx[..., gates:]
    see, _, remember_backward = choose_pointwise(da, act)
    errors = see(dh), see(dc)
    passed = map(see, (dy, x[..., :gates], resets.seen(c), tanh_c, da))
    for x_m, v_t, da_t, dx_m_t, dv_t, *places in resets.cut(
        iterate_steps_reversed(x[..., gates:], v, da, dx_m, dv, *passed), dh, dc
    ):
        remember_backward(*places, *errors)
        dm = torch.mm(da_t, w, out=dh)
        torch.mul(dm, v_t, out=dx_m_t)
        torch.mul(dm, x_m, out=dv_t)
        torch.mm(dv_t, w_m, out=dh)
    return dx, (dh, dc), (torch.cat([weight_gradient(da, m), weight_gradient(dv, resets.seen(h))]),)


MLSTM = Kernel(("weight_hh",), forward, backward)
