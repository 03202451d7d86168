"""The multiplicative LSTM over a sequence.

Forward, with x_m the fifth block of `x` and W_m that of W:

    v_t = W_m h_{t-1}       m_t = x_m v_t       a_t = W m_t + x_t        then the LSTM's gates and states (`lstm.py`)

Backward, da_t is that of the LSTM. It reaches the step before through m_t, where each factor of the product gets the
other one times the gradient:

    dm_t     = W^T da_t                     dW   = sum_t da_t m_t^T
    dx_m     = dm_t v_t
    dv_t     = dm_t x_m                     dW_m = sum_t dv_t h_{t-1}^T
    dh_{t-1} = W_m^T dv_t  (+ dy_{t-1})
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.lstm import apply_gates, apply_gates_backward
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
    cell_state = copy_for_accumulation(state[1])
    tanh_c, v, m = (torch.empty_like(h[1:]) for _ in range(3))
    a, x_m = x[..., :gates], x[..., gates:]
    for k, x_m_t, v_t, m_t, h_prev, a_t, c_t, tanh_c_t, h_t in iterate_steps(
        resets.masks(len(x)), x_m, v, m, h[:-1], a, c[1:], tanh_c, h[1:]
    ):
        if k is not None:
            h_prev = h_prev * k
            cell_state.mul_(k)
        torch.mul(x_m_t, torch.mm(h_prev, w_m, out=v_t), out=m_t)
        a_t.addmm_(m_t, w)
        apply_gates(act, a_t, c_t, tanh_c_t, h_t, cell_state)
    return h[1:], (h[-1].clone(), cell_state), (x, h, c, tanh_c, v, m)


def backward(
    dy: Tensor, dstate: TensorState, saved: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    x, h, c, tanh_c, v, m = saved
    gates = 4 * dy.shape[2]
    w, w_m = weights[0][:gates], weights[0][gates:]
    dx, dv, dh, dc = torch.empty_like(x), torch.empty_like(v), dstate[0].clone(), copy_for_accumulation(dstate[1])
    da, dx_m = dx[..., :gates], dx[..., gates:]
    for k, x_m_t, v_t, da_t, dx_m_t, dv_t, dy_t, gates_t, c_prev, tanh_c_t in iterate_steps_reversed(
        resets.masks(len(dy)), x[..., gates:], v, da, dx_m, dv, dy, x[..., :gates], resets.mask(c[:-1]), tanh_c
    ):
        apply_gates_backward(act, dy_t, gates_t, c_prev, tanh_c_t, da_t, dh, dc)
        dm = torch.mm(da_t, w, out=dh)
        torch.mul(dm, v_t, out=dx_m_t)
        torch.mul(dm, x_m_t, out=dv_t)
        torch.mm(dv_t, w_m, out=dh)
        if k is not None:
            dh.mul_(k)
            dc.mul_(k)
    return dx, (dh, dc), (torch.cat([weight_gradient(da, m), weight_gradient(dv, resets.mask(h[:-1]))]),)


MLSTM = Kernel(("weight_hh",), forward, backward)
