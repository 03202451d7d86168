"""The two gated recurrent units over a sequence. They differ in where the reset gate stands.

As in torch and cuDNN, after the product, with `m_t` = W h_{t-1} + b in three blocks:

    r = sigmoid(x_r + m_r)    z = sigmoid(x_z + m_z)    n = act(x_n + r m_n)    h_t = n + z (h_{t-1} - n)

Backwards, let `dh_t` be the error on h_t, from above and from the next step. From the last step to the first:

    da_z = dh_t (h_{t-1} - n) z (1-z)
    da_n = dh_t (1-z) act'(.)
    da_r = da_n m_n r (1-r)
    dx_t = [da_r, da_z, da_n]         dm_t = [da_r, da_z, da_n r]
    dh_{t-1} = dh_t z + W^T dm_t  (+ dy_{t-1})

and after the loop dW = sum_t dm_t h_{t-1}^T, db = sum_t dm_t.

As in Cho et al. 2014, before it, with s_t = r h_{t-1}:

    r = sigmoid(x_r + W_r h_{t-1})    z = sigmoid(x_z + W_z h_{t-1})    n = act(x_n + W_n s_t)    h_t as above

    da_z, da_n as above               ds_t = W_n^T da_n                 da_r = ds_t h_{t-1} r (1-r)
    dh_{t-1} = dh_t z + ds_t r + W_r^T da_r + W_z^T da_z  (+ dy_{t-1})

with dx_t = da_t, dW_r, dW_z = sum_t da h_{t-1}^T and dW_n = sum_t da_n s_t^T. Its two products wait for each other,
which is why the other form was made.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from charlstm.model.kernels.pointwise import KernelActivation, PointwiseOps, identity, load_fused_for, sigmoid_backward
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
    h, m = new_state_buffer(state[0].to(x.dtype), len(x)), x.new_empty(*x.shape[1:])
    carry, m_n = copy_for_accumulation(state[0]), torch.empty_like(h[1:])
    see, update, _ = choose_pointwise(x, act)
    product, carried_on = see(m), see(carry)
    for before, *places in iterate_steps(resets.before(h, carry), *map(see, (x, m_n, h[1:]))):
        torch.addmm(b, before, w.t(), out=m)
        update(*places, product, carried_on)
    return h[1:], (carry,), (x, h, m_n)


def gru_backward(
    dy: Tensor, dafter: TensorState, kept: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (gates, h, m_n), (w, _) = kept, weights
    dm, dn, dh = torch.empty_like(gates), torch.empty_like(m_n), copy_for_accumulation(dafter[0])
    see, _, update_backward = choose_pointwise(gates, act)
    seen, error = resets.seen(h), see(dh)
    for dm_t, *places in resets.cut(iterate_steps_reversed(dm, *map(see, (dy, gates, seen, m_n, dm, dn))), dh):
        update_backward(*places, error)
        dh.add_(torch.mm(dm_t, w))
    dw, db = weight_gradient(dm, seen), dm.sum((0, 1))
    dm[..., 2 * w.shape[1] :] = dn  # from here on it is dx
    return dm, (dh,), (dw, db)


def choose_pointwise(a: Tensor, act: KernelActivation) -> PointwiseOps:
    """What turns x_t and m_t into h_t, and back, for tensors like this one."""
    if fused := load_fused_for(a, act):
        return PointwiseOps(fused.to_numba_array, fused.fused_gru, fused.fused_gru_backward)
    return PointwiseOps(identity, partial(apply_gates, act), partial(apply_gates_backward, act))


def apply_gates(act: KernelActivation, x: Tensor, m_n: Tensor, h: Tensor, m: Tensor, carry: Tensor) -> None:
    """From x_t and m_t [B, 3*H]: turns x_t into the gates and `carry` from h_{t-1} into h_t, keeps m_n, fills h_t."""
    gates = 2 * h.shape[1]
    a_gates, n = x[:, :gates], x[:, gates:]
    r, z = a_gates.add_(m[:, :gates]).sigmoid_().chunk(2, 1)
    act.apply_(n.addcmul_(r, m_n.copy_(m[:, gates:])))
    h.copy_(torch.lerp(at_least_float32(n), carry, at_least_float32(z), out=carry))


def apply_gates_backward(
    act: KernelActivation, dy: Tensor, gates: Tensor, before: Tensor, m_n: Tensor, dm: Tensor, dn: Tensor, dh: Tensor
) -> None:
    """From the error on h_t: fills dm_t and the candidate's block of dx_t; `dh` becomes what z lets through of it."""
    (r, z, n), (dr, dz, dm_n) = gates.chunk(3, 1), dm.chunk(3, 1)
    mix_backward(dh.add_(dy), z, n, before, dz, dn, act)
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
    carry, s = copy_for_accumulation(state[0]), torch.empty_like(h[1:])
    for a_gates, n, s_t, before, h_t in iterate_steps(
        x[..., :gates], x[..., gates:], s, resets.before(h, carry), h[1:]
    ):
        r, z = a_gates.addmm_(before, w_gates).sigmoid_().chunk(2, 1)
        act.apply_(n.addmm_(torch.mul(r, before, out=s_t), w_n))
        h_t.copy_(torch.lerp(at_least_float32(n), carry, at_least_float32(z), out=carry))
    return h[1:], (carry,), (x, h, s)


def gru_cho_backward(
    dy: Tensor, dafter: TensorState, kept: TensorTuple, weights: TensorTuple, act: KernelActivation, resets: Resets
) -> tuple[Tensor, TensorState, TensorTuple]:
    (gates, h, s), (w,) = kept, weights
    hidden = w.shape[1]
    w_gates, w_n = w[: 2 * hidden], w[2 * hidden :]
    da, dh, ds = torch.empty_like(gates), copy_for_accumulation(dafter[0]), torch.empty_like(h[0])
    seen = resets.seen(h)
    for dy_t, gates_t, before, da_t in resets.cut(iterate_steps_reversed(dy, gates, seen, da), dh):
        (r, z, n), (dr, dz, dn) = gates_t.chunk(3, 1), da_t.chunk(3, 1)
        mix_backward(dh.add_(dy_t), z, n, before, dz, dn, act)
        torch.mm(dn, w_n, out=ds)
        sigmoid_backward(torch.mul(ds, before, out=dr), r, dr)
        dh.mul_(z).addcmul_(ds, r).add_(torch.mm(da_t[:, : 2 * hidden], w_gates))
    dw = torch.cat([weight_gradient(da[..., : 2 * hidden], seen), weight_gradient(da[..., 2 * hidden :], s)])
    return da, (dh,), (dw,)


def mix_backward(
    dh: Tensor, z: Tensor, n: Tensor, before: Tensor, dz: Tensor, dn: Tensor, act: KernelActivation
) -> None:
    """From the error on h_t = n + z (h_{t-1} - n): fills da_z and da_n."""
    error = dh.to(n.dtype)
    sigmoid_backward(torch.sub(before, n, out=dz).mul_(error), z, dz)
    act.backward(torch.addcmul(error, error, z, value=-1, out=dn), n, dn)


GRU = Kernel(("weight_hh", "bias_hh"), gru_forward, gru_backward)
GRU_CHO = Kernel(("weight_hh",), gru_cho_forward, gru_cho_backward)
