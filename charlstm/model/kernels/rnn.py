"""Elman's network and Jordan's, over a sequence. This is the kernel to read first.

Elman, with a_t = W h_{t-1} + x_t and h_t = act(a_t). Let `dh_t` be the gradient of h_t: the sum of dy_t, from the layer
above, and of what comes from the next step. Then, from the last step to the first,

    da_t     = dh_t * act'(a_t)                 also the gradient of x_t, which is added to a_t
    dh_{t-1} = W^T da_t  (+ dy_{t-1})           through time
    dW       = sum_t da_t h_{t-1}^T             one product after the loop

and for the layer below, whose output u_t enters as x_t = W_ih u_t + b:  du_t = W_ih^T da_t,
dW_ih = sum_t da_t u_t^T, db = sum_t da_t. Each is one product over all steps and the same for every cell, so autograd
does them. Where u_t is row k_t of a table whose rows are projected first, P = table W_ih^T + b and x_t = P[k_t],
dP[k] is the sum of da_t over the t with k_t = k, and dW_ih = dP^T table.

Jordan, with a_t = W y_{t-1} + x_t, h_t = act(a_t), e_t = V h_t + b and y_t = tanh(e_t), has one more layer in the loop:

    de_t     = dy_t * (1 - y_t^2)               db = sum_t de_t
    dh_t     = V^T de_t                         dV = sum_t de_t h_t^T
    da_t     = dh_t * act'(a_t)                 dW = sum_t da_t y_{t-1}^T
    dy_{t-1} = W^T da_t  (+ dy_{t-1} from the layer above)
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.pointwise import KernelActivation, load_fused_for, tanh_, tanh_backward
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


def elman_forward(
    x: Tensor, state: TensorState, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (w,) = weights
    h = new_state_buffer(state[0].to(x.dtype), len(x))
    if fused := load_fused_for(x, act):
        fused.run_forward("elman", w, resets, h, x)
    else:
        recurrence = RecurrentProduct(w, x.shape[1])
        for k, x_t, h_prev, h_t in iterate_steps(resets.masks(len(x)), x, h[:-1], h[1:]):
            if k is not None:
                h_prev = h_prev * k
            act.apply_(recurrence.add(x_t, h_prev, out=h_t))
    return h[1:], (h[-1].clone(),), (h,)


def elman_backward(
    dy: Tensor, dstate: TensorState, saved: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (w,), (h,) = weights, saved
    da = torch.empty_like(dy)
    if fused := load_fused_for(h, act):
        dh = copy_for_accumulation(dstate[0])
        fused.run_backward("elman", w, resets, dh, dy, h, da)
    else:
        dh, transposed = dstate[0].clone(), RecurrentProduct(w.t(), dy.shape[1])
        for k, dy_t, h_t, da_t in iterate_steps_reversed(resets.masks(len(dy)), dy, h[1:], da):
            act.backward(dh.add_(dy_t), h_t, da_t)
            transposed.multiply(da_t, out=dh)
            if k is not None:
                dh.mul_(k)
    return da, (dh,), (weight_gradient(da, resets.mask(h[:-1])),)


def jordan_forward(
    x: Tensor, state: TensorState, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    w, v, b = weights
    y = new_state_buffer(state[0].to(x.dtype), len(x))
    for k, x_t, y_prev, y_t in iterate_steps(resets.masks(len(x)), x, y[:-1], y[1:]):
        if k is not None:
            y_prev = y_prev * k
        h_t = act.apply_(x_t.addmm_(y_prev, w.t()))
        tanh_(torch.addmm(b, h_t, v.t(), out=y_t))
    return y[1:], (y[-1].clone(),), (y, x)


def jordan_backward(
    dy: Tensor, dstate: TensorState, saved: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (w, v, _), (y, h) = weights, saved
    da, de = torch.empty_like(dy), torch.empty_like(dy)
    gradient = dstate[0].clone()  # of y_t, then of h_t, then of y_{t-1}
    for k, dy_t, y_t, h_t, da_t, de_t in iterate_steps_reversed(resets.masks(len(dy)), dy, y[1:], h, da, de):
        tanh_backward(gradient.add_(dy_t), y_t, de_t)
        act.backward(torch.mm(de_t, v, out=gradient), h_t, da_t)
        torch.mm(da_t, w, out=gradient)
        if k is not None:
            gradient.mul_(k)
    return da, (gradient,), (weight_gradient(da, resets.mask(y[:-1])), weight_gradient(de, h), de.sum((0, 1)))


ELMAN = Kernel(("weight_hh",), elman_forward, elman_backward)
JORDAN = Kernel(("weight_hh", "weight_hy", "bias_hy"), jordan_forward, jordan_backward)
