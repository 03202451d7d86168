"""The two gated recurrent units over a sequence. They differ in where the reset gate is applied.

`gru`, as in torch and cuDNN, applies it after the product, with `m_t` = W h_{t-1} + b in three blocks:

    r = sigmoid(x_r + m_r)    z = sigmoid(x_z + m_z)    n = act(x_n + r m_n)    h_t = n + z (h_{t-1} - n)

Backward, let `dh_t` be the gradient of h_t, from the layer above and from the next step. From the last step to the
first:

    da_z = dh_t (h_{t-1} - n) z (1-z)
    da_n = dh_t (1-z) act'(.)
    da_r = da_n m_n r (1-r)
    dx_t = [da_r, da_z, da_n]         dm_t = [da_r, da_z, da_n r]
    dh_{t-1} = dh_t z + W^T dm_t  (+ dy_{t-1})

and after the loop dW = sum_t dm_t h_{t-1}^T, db = sum_t dm_t.

`gru-cho`, as in Cho et al. 2014, applies it before the product, with s_t = r h_{t-1}:

    r = sigmoid(x_r + W_r h_{t-1})    z = sigmoid(x_z + W_z h_{t-1})    n = act(x_n + W_n s_t)    h_t as above

    da_z, da_n as above               ds_t = W_n^T da_n                 da_r = ds_t h_{t-1} r (1-r)
    dh_{t-1} = dh_t z + ds_t r + W_r^T da_r + W_z^T da_z  (+ dy_{t-1})

with dx_t = da_t, dW_r, dW_z = sum_t da h_{t-1}^T and dW_n = sum_t da_n s_t^T. Its second product has to wait for the
first, which is why cuDNN has the other form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.pointwise import KernelActivation, load_fused_for, sigmoid_backward
from charlstm.model.kernels.product import RecurrentProduct
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


def gru_forward(
    x: Tensor, state: TensorState, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    w, b = weights
    h = new_state_buffer(state[0].to(x.dtype), len(x))
    hidden, m_n = copy_for_accumulation(state[0]), torch.empty_like(h[1:])
    if fused := load_fused_for(x, act):
        fused.run_forward("gru", w, resets, h, x, m_n, hidden, b.float())
    else:
        m, recurrence = x.new_empty(*x.shape[1:]), RecurrentProduct(w, x.shape[1])
        for k, h_prev, x_t, m_n_t, h_t in iterate_steps(resets.masks(len(x)), h[:-1], x, m_n, h[1:]):
            if k is not None:
                h_prev = h_prev * k
                hidden.mul_(k)
            recurrence.add(b, h_prev, out=m)
            apply_gates(act, x_t, m_n_t, h_t, m, hidden)
    return h[1:], (hidden,), (x, h, m_n)


def gru_backward(
    dy: Tensor, dstate: TensorState, saved: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (gates, h, m_n), (w, _) = saved, weights
    dm, dn, dh = torch.empty_like(gates), torch.empty_like(m_n), copy_for_accumulation(dstate[0])
    h_before = resets.mask(h[:-1])
    if fused := load_fused_for(gates, act):
        fused.run_backward("gru", w, resets, dh, dy, gates, h, m_n, dm, dn)
    else:
        product, transposed = gates.new_empty(dh.shape), RecurrentProduct(w.t(), gates.shape[1])
        for k, dy_t, gates_t, h_prev, m_n_t, dm_t, dn_t in iterate_steps_reversed(
            resets.masks(len(dy)), dy, gates, h_before, m_n, dm, dn
        ):
            apply_gates_backward(act, dy_t, gates_t, h_prev, m_n_t, dm_t, dn_t, dh)
            dh.add_(transposed.multiply(dm_t, out=product))
            if k is not None:
                dh.mul_(k)
    dw, db = weight_gradient(dm, h_before), dm.sum((0, 1))
    dm[..., 2 * w.shape[1] :] = dn  # dm is dx from here on
    return dm, (dh,), (dw, db)


def apply_gates(act: KernelActivation, x: Tensor, m_n: Tensor, h: Tensor, m: Tensor, hidden: Tensor) -> None:
    """Compute a step from x_t and m_t [B, 3*H] and h_{t-1}, which is in `hidden`.

    Overwrites x_t with the gates and `hidden` with h_t; writes the block of m_t for n, and h_t, to the arrays [B, H].
    """
    gates = 2 * h.shape[1]
    a_gates, n = x[:, :gates], x[:, gates:]
    r, z = a_gates.add_(m[:, :gates]).sigmoid_().chunk(2, 1)
    act.apply_(n.addcmul_(r, m_n.copy_(m[:, gates:])))
    h.copy_(torch.lerp(at_least_float32(n), hidden, at_least_float32(z), out=hidden))


def apply_gates_backward(
    act: KernelActivation, dy: Tensor, gates: Tensor, h_prev: Tensor, m_n: Tensor, dm: Tensor, dn: Tensor, dh: Tensor
) -> None:
    """Compute dm_t [B, 3*H] and da_n from the gradient of h_t (`dy` from above plus `dh` from the next step).

    Overwrites `dh` with dh_t z, the part of the gradient of h_{t-1} that does not pass through W.
    """
    (r, z, n), (dr, dz, dm_n) = gates.chunk(3, 1), dm.chunk(3, 1)
    interpolate_backward(dh.add_(dy), z, n, h_prev, dz, dn, act)
    sigmoid_backward(torch.mul(dn, m_n, out=dr), r, dr)
    torch.mul(dn, r, out=dm_n)
    dh.mul_(z)


def gru_cho_forward(
    x: Tensor, state: TensorState, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (w,) = weights
    gates = 2 * w.shape[1]
    w_gates, w_n = w[:gates].t(), w[gates:].t()
    h = new_state_buffer(state[0].to(x.dtype), len(x))
    hidden, s = copy_for_accumulation(state[0]), torch.empty_like(h[1:])
    for k, a_gates, n, s_t, h_prev, h_t in iterate_steps(
        resets.masks(len(x)), x[..., :gates], x[..., gates:], s, h[:-1], h[1:]
    ):
        if k is not None:
            h_prev = h_prev * k
            hidden.mul_(k)
        r, z = a_gates.addmm_(h_prev, w_gates).sigmoid_().chunk(2, 1)
        act.apply_(n.addmm_(torch.mul(r, h_prev, out=s_t), w_n))
        h_t.copy_(torch.lerp(at_least_float32(n), hidden, at_least_float32(z), out=hidden))
    return h[1:], (hidden,), (x, h, s)


def gru_cho_backward(
    dy: Tensor, dstate: TensorState, saved: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (gates, h, s), (w,) = saved, weights
    hidden = w.shape[1]
    w_gates, w_n = w[: 2 * hidden], w[2 * hidden :]
    da, dh, ds = torch.empty_like(gates), copy_for_accumulation(dstate[0]), torch.empty_like(h[0])
    h_before = resets.mask(h[:-1])
    for k, dy_t, gates_t, h_prev, da_t in iterate_steps_reversed(resets.masks(len(dy)), dy, gates, h_before, da):
        (r, z, n), (dr, dz, dn) = gates_t.chunk(3, 1), da_t.chunk(3, 1)
        interpolate_backward(dh.add_(dy_t), z, n, h_prev, dz, dn, act)
        torch.mm(dn, w_n, out=ds)
        sigmoid_backward(torch.mul(ds, h_prev, out=dr), r, dr)
        dh.mul_(z).addcmul_(ds, r).add_(torch.mm(da_t[:, : 2 * hidden], w_gates))
        if k is not None:
            dh.mul_(k)
    dw = torch.cat([weight_gradient(da[..., : 2 * hidden], h_before), weight_gradient(da[..., 2 * hidden :], s)])
    return da, (dh,), (dw,)


def interpolate_backward(
    dh: Tensor, z: Tensor, n: Tensor, h_prev: Tensor, dz: Tensor, dn: Tensor, act: KernelActivation
) -> None:
    """Write da_z and da_n, given the gradient of h_t = n + z (h_{t-1} - n)."""
    dh_t = dh.to(n.dtype)
    sigmoid_backward(torch.sub(h_prev, n, out=dz).mul_(dh_t), z, dz)
    act.backward(torch.addcmul(dh_t, dh_t, z, value=-1, out=dn), n, dn)


GRU = Kernel(("weight_hh", "bias_hh"), gru_forward, gru_backward)
GRU_CHO = Kernel(("weight_hh",), gru_cho_forward, gru_cho_backward)
