"""Elman's network and Jordan's, over a sequence.

Elman, with a_t = W h_{t-1} + x_t and h_t = act(a_t). Let `dh_t` be the error on h_t: what comes from above (dy_t)
and from the next step. Then, from the last step to the first,

    da_t     = dh_t * act'(a_t)                 the error on x_t too, as x_t is added to a_t
    dh_{t-1} = W^T da_t  (+ dy_{t-1})           through time
    dW       = sum_t da_t h_{t-1}^T             one product after the loop

and for the layer below, whose output entered by x_t = W_ih u_t + b:  du_t = W_ih^T da_t,
dW_ih = sum_t da_t u_t^T, db = sum_t da_t. These are one product each for all steps, and the same for every cell:
autograd does them. Where u_t is row k_t of a table whose rows were projected first, P = table W_ih^T + b and
x_t = P[k_t], then dP[k] = sum of da_t over the t with k_t = k, and dW_ih = dP^T table.

Jordan, with a_t = W y_{t-1} + x_t, h_t = act(a_t), e_t = V h_t + b and y_t = tanh(e_t): one more layer on the way,

    de_t     = dy_t * (1 - y_t^2)               db = sum_t de_t
    dh_t     = V^T de_t                         dV = sum_t de_t h_t^T
    da_t     = dh_t * act'(a_t)                 dW = sum_t da_t y_{t-1}^T
    dy_{t-1} = W^T da_t  (+ what comes from above)
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.pointwise import KernelActivation, tanh_, tanh_backward
from charlstm.model.kernels.resets import Resets
from charlstm.model.kernels.sequence import (
    Kernel,
    TensorState,
    TensorTuple,
    iterate_steps,
    iterate_steps_reversed,
    new_state_buffer,
    weight_gradient,
)


def elman_forward(
    x: Tensor, state: TensorState, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (w,) = weights
    h = new_state_buffer(state[0].to(x.dtype), len(x))
    for x_t, before, h_t in iterate_steps(x, resets.before(h), h[1:]):
        act.apply_(torch.addmm(x_t, before, w.t(), out=h_t))
    return h[1:], (h[-1].clone(),), (h,)


def elman_backward(
    dy: Tensor, dafter: TensorState, kept: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (w,), (h,) = weights, kept
    da, dh = torch.empty_like(dy), dafter[0].clone()
    for dy_t, h_t, da_t in resets.cut(iterate_steps_reversed(dy, h[1:], da), dh):
        act.backward(dh.add_(dy_t), h_t, da_t)
        torch.mm(da_t, w, out=dh)
    return da, (dh,), (weight_gradient(da, resets.seen(h)),)


def jordan_forward(
    x: Tensor, state: TensorState, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    w, v, b = weights
    y = new_state_buffer(state[0].to(x.dtype), len(x))
    for x_t, before, y_t in iterate_steps(x, resets.before(y), y[1:]):
        h_t = act.apply_(x_t.addmm_(before, w.t()))
        tanh_(torch.addmm(b, h_t, v.t(), out=y_t))
    return y[1:], (y[-1].clone(),), (y, x)


def jordan_backward(
    dy: Tensor, dafter: TensorState, kept: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (w, v, _), (y, h) = weights, kept
    da, de = torch.empty_like(dy), torch.empty_like(dy)
    error = dafter[0].clone()
    for dy_t, y_t, h_t, da_t, de_t in resets.cut(iterate_steps_reversed(dy, y[1:], h, da, de), error):
        tanh_backward(error.add_(dy_t), y_t, de_t)
        act.backward(torch.mm(de_t, v, out=error), h_t, da_t)
        torch.mm(da_t, w, out=error)
    return da, (error,), (weight_gradient(da, resets.seen(y)), weight_gradient(de, h), de.sum((0, 1)))


ELMAN = Kernel(("weight_hh",), elman_forward, elman_backward)
JORDAN = Kernel(("weight_hh", "weight_hy", "bias_hy"), jordan_forward, jordan_backward)
