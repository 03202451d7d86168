"""The LSTM over a sequence.

Forwards, with `a_t` = W h_{t-1} + x_t in four blocks of H:

    i = sigmoid(a_i)    f = sigmoid(a_f)    g = act(a_g)    o = sigmoid(a_o)
    c_t = f c_{t-1} + i g                   h_t = o tanh(c_t)

Backwards, let `dh_t` be the error on h_t (from above, and from the next step) and `dc_t` that on c_t, of which the
next step has given its part. From the last step to the first:

    da_o      = dh_t tanh(c_t) o (1-o)
    dc_t     += dh_t o (1 - tanh(c_t)^2)
    da_i      = dc_t g       i (1-i)
    da_f      = dc_t c_{t-1} f (1-f)
    da_g      = dc_t i act'(a_g)
    dc_{t-1}  = dc_t f                      no matrix in it: what the cell was made for
    dh_{t-1}  = W^T da_t  (+ dy_{t-1}, from above)

and after the loop, in one product over all steps, dW = sum_t da_t h_{t-1}^T. The error on x_t is da_t, as x_t is
added to a_t: the layer below gets W_ih^T da_t, and W_ih the gradient sum_t da_t u_t^T, where u is that layer's
output (see `rnn.py`).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from charlstm.model.kernels.pointwise import (
    KernelActivation,
    PointwiseOps,
    identity,
    load_fused_for,
    sigmoid_backward,
    tanh_,
    tanh_backward,
)
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
    carry, tanh_c = copy_for_accumulation(state[1]), torch.empty_like(h[1:])
    see, remember, _ = choose_pointwise(x, act)
    memory = see(carry)
    for a, before, *places in iterate_steps(x, resets.before(h, carry), *map(see, (x, c[1:], tanh_c, h[1:]))):
        a.addmm_(before, w.t())
        remember(*places, memory)
    return h[1:], (h[-1].clone(), carry), (x, h, c, tanh_c)


def backward(
    dy: Tensor, dafter: TensorState, kept: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (gates, h, c, tanh_c), (w,) = kept, weights
    da, dh, dc = torch.empty_like(gates), dafter[0].clone(), copy_for_accumulation(dafter[1])
    see, _, remember_backward = choose_pointwise(gates, act)
    errors = see(dh), see(dc)
    for da_t, *places in resets.cut(
        iterate_steps_reversed(da, *map(see, (dy, gates, resets.seen(c), tanh_c, da))), dh, dc
    ):
        remember_backward(*places, *errors)
        torch.mm(da_t, w, out=dh)
    return da, (dh, dc), (weight_gradient(da, resets.seen(h)),)


def choose_pointwise(a: Tensor, act: KernelActivation) -> PointwiseOps:
    """What turns a_t into h_t, and back, for tensors like this one."""
    if fused := load_fused_for(a, act):
        return PointwiseOps(fused.to_numba_array, fused.fused_lstm, fused.fused_lstm_backward)
    return PointwiseOps(identity, partial(apply_gates, act), partial(apply_gates_backward, act))


def apply_gates(act: KernelActivation, a: Tensor, c: Tensor, tanh_c: Tensor, h: Tensor, carry: Tensor) -> None:
    """From a_t [B, 4*H]: turns it into the gates and `carry` from c_{t-1} into c_t, and fills c_t, tanh(c_t), h_t."""
    i, f, g, o = a.chunk(4, 1)
    a[:, : 2 * h.shape[1]].sigmoid_()
    act.apply_(g)
    o.sigmoid_()
    c.copy_(carry.mul_(f).addcmul_(i, g))
    torch.mul(o, tanh_(tanh_c.copy_(carry)), out=h)


def apply_gates_backward(
    act: KernelActivation, dy: Tensor, gates: Tensor, before: Tensor, tanh_c: Tensor, da: Tensor, dh: Tensor, dc: Tensor
) -> None:
    """From the errors on h_t (`dy` from above, `dh` from the next step; uses it up) and c_t: fills da_t, and turns `dc`
    into the error on c_{t-1}."""
    (i, f, g, o), (di, df, dg, do) = gates.chunk(4, 1), da.chunk(4, 1)
    sigmoid_backward(torch.mul(dh.add_(dy), tanh_c, out=do), o, do)
    dc.add_(tanh_backward(dh.mul_(o), tanh_c, dh))
    error = dc.to(dh.dtype)
    sigmoid_backward(torch.mul(error, g, out=di), i, di)
    sigmoid_backward(torch.mul(error, before, out=df), f, df)
    act.backward(torch.mul(error, i, out=dg), g, dg)
    dc.mul_(f)


LSTM = Kernel(("weight_hh",), forward, backward)
