"""`cross_entropy.softmax_gradient`, compiled: `compiled/softmax.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.native import call


def fused_softmax_gradient(
    logits: Tensor, bias: Tensor, targets: Tensor, smoothing: float, scale: float, bias_gradient: Tensor
) -> tuple[float, float]:
    """Compute `cross_entropy.softmax_gradient`."""
    row, factors = torch.empty_like(bias), torch.tensor((smoothing, scale), dtype=torch.float64)
    sums = torch.empty_like(factors)
    call("softmax_gradient_rows", (), (logits, bias, targets, factors, row, bias_gradient, sums))
    loss, target_logit = sums.tolist()
    return loss, target_logit
