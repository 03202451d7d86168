"""The LSTM over a sequence.

Forward, with `a_t` = W h_{t-1} + x_t in four blocks of H:

    i = sigmoid(a_i)    f = sigmoid(a_f)    g = act(a_g)    o = sigmoid(a_o)
    c_t = f c_{t-1} + i g                   h_t = o tanh(c_t)

Backward, let `dh_t` be the gradient of h_t (from the layer above and from the next step), and `dc_t` that of c_t, to
which the next step has already contributed. From the last step to the first:

    da_o      = dh_t tanh(c_t) o (1-o)
    dc_t     += dh_t o (1 - tanh(c_t)^2)
    da_i      = dc_t g       i (1-i)
    da_f      = dc_t c_{t-1} f (1-f)
    da_g      = dc_t i act'(a_g)
    dc_{t-1}  = dc_t f                      no matrix here: gradients survive many steps
    dh_{t-1}  = W^T da_t  (+ dy_{t-1}, from the layer above)

After the loop, dW = sum_t da_t h_{t-1}^T is one product over all steps. The gradient of x_t is da_t, because x_t is
added to a_t. The layer below, with output u, gets W_ih^T da_t, and W_ih gets sum_t da_t u_t^T (see `rnn.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.pointwise import (
    KernelActivation,
    load_fused_for,
    sigmoid_backward,
    tanh_,
    tanh_backward,
)
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
    (w,) = weights
    h, c = new_state_buffer(state[0].to(x.dtype), len(x)), new_state_buffer(state[1].to(x.dtype), len(x))
    cell_state, tanh_c = copy_for_accumulation(state[1]), torch.empty_like(h[1:])
    if fused := load_fused_for(x, act):
        fused.run_forward("lstm", w, resets, h, x, c, tanh_c, cell_state)
    else:
        recurrence = RecurrentProduct(w, x.shape[1])
        for k, a, h_prev, c_t, tanh_c_t, h_t in iterate_steps(resets.masks(len(x)), x, h[:-1], c[1:], tanh_c, h[1:]):
            if k is not None:
                h_prev = h_prev * k
                cell_state.mul_(k)
            recurrence.add(a, h_prev, out=a)
            apply_gates(act, a, c_t, tanh_c_t, h_t, cell_state)
    return h[1:], (h[-1].clone(), cell_state), (x, h, c, tanh_c)


def backward(
    dy: Tensor, dstate: TensorState, saved: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (gates, h, c, tanh_c), (w,) = saved, weights
    da, dc = torch.empty_like(gates), copy_for_accumulation(dstate[1])
    if fused := load_fused_for(gates, act):
        dh = copy_for_accumulation(dstate[0])
        fused.run_backward("lstm", w, resets, dh, dy, gates, c, tanh_c, da, dc)
    else:
        dh, transposed = dstate[0].clone(), RecurrentProduct(w.t(), gates.shape[1])
        for k, dy_t, gates_t, c_prev, tanh_c_t, da_t in iterate_steps_reversed(
            resets.masks(len(dy)), dy, gates, resets.mask(c[:-1]), tanh_c, da
        ):
            apply_gates_backward(act, dy_t, gates_t, c_prev, tanh_c_t, da_t, dh, dc)
            transposed.multiply(da_t, out=dh)
            if k is not None:
                dh.mul_(k)
                dc.mul_(k)
    return da, (dh, dc), (weight_gradient(da, resets.mask(h[:-1])),)


def apply_gates(act: KernelActivation, a: Tensor, c: Tensor, tanh_c: Tensor, h: Tensor, cell_state: Tensor) -> None:
    """Compute a step from a_t [B, 4*H] and c_{t-1}, which is in `cell_state`.

    Overwrites a_t with the gates and `cell_state` with c_t; writes c_t, tanh(c_t) and h_t to the other arrays [B, H].
    """
    i, f, g, o = a.chunk(4, 1)
    a[:, : 2 * h.shape[1]].sigmoid_()
    act.apply_(g)
    o.sigmoid_()
    c.copy_(cell_state.mul_(f).addcmul_(i, g))
    torch.mul(o, tanh_(tanh_c.copy_(cell_state)), out=h)


def apply_gates_backward(
    act: KernelActivation, dy: Tensor, gates: Tensor, c_prev: Tensor, tanh_c: Tensor, da: Tensor, dh: Tensor, dc: Tensor
) -> None:
    """Compute da_t [B, 4*H] from the gradients of h_t (`dy` from above plus `dh` from the next step) and of c_t.

    Overwrites `dc` with the gradient of c_{t-1}; `dh` is scratch space afterwards.
    """
    (i, f, g, o), (di, df, dg, do) = gates.chunk(4, 1), da.chunk(4, 1)
    sigmoid_backward(torch.mul(dh.add_(dy), tanh_c, out=do), o, do)
    dc.add_(tanh_backward(dh.mul_(o), tanh_c, dh))
    dc_t = dc.to(dh.dtype)
    sigmoid_backward(torch.mul(dc_t, g, out=di), i, di)
    sigmoid_backward(torch.mul(dc_t, c_prev, out=df), f, df)
    act.backward(torch.mul(dc_t, i, out=dg), g, dg)
    dc.mul_(f)


LSTM = Kernel(("weight_hh",), forward, backward)
