"""The LSTM, the GRU and Elman's network over all steps of a sequence, compiled: `compiled/sequences.py`.

On a CPU these functions replace the tensor operations of `lstm.py`, `gru.py` and `rnn.py`. Each of those is fast, but a
step has ten of them, and in narrow layers and small batches calling them costs more than the matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlstm.model.kernels.panels import WIDTH, count_words, pack
from charlstm.model.kernels.resets import Resets
from charlstm.model.kernels.team import SharedWork, run_team


def run_forward(cell: str, w: Tensor, resets: Resets, h: Tensor, *arrays: Tensor) -> None:
    """Run the forward pass of a cell.

    cell: "lstm", "gru" or "elman".
    w: the recurrent matrix [G*H, H].
    h: the states [T+1, B, H]; the first is read, the others are written.
    arrays: the other arguments of the function.
    """
    batch, hidden = h.shape[1:]
    panels = pack_blocks(w, hidden)
    inputs = torch.zeros(2, batch, count_words(panels), dtype=panels.dtype)
    first = h[0] if resets.keep is None else h[0] * resets.keep[0]
    inputs[0].view(first.dtype if panels.dtype != torch.float32 else torch.float32)[:, :hidden] = first
    work, sums = SharedWork(batch, hidden, WIDTH, panels.nbytes), torch.empty(len(w) * batch)
    run_team(f"{cell}_forward", work, h, *arrays, panels, inputs, find_kept(resets), sums)


def run_backward(cell: str, w: Tensor, resets: Resets, dh: Tensor, *arrays: Tensor) -> None:
    """Run the backward pass of a cell.

    cell: "lstm", "gru" or "elman".
    w: the recurrent matrix [G*H, H].
    dh: the gradient of the last state [B, H], which becomes that of the first.
    arrays: the other arguments of the function.
    """
    batch, hidden = dh.shape
    panels = pack_blocks(w.t(), hidden)
    inputs = torch.zeros(2, batch, count_words(panels), dtype=panels.dtype)
    work, sums = SharedWork(batch, hidden, WIDTH, panels.nbytes), torch.empty(hidden * batch)
    run_team(f"{cell}_backward", work, dh, *arrays, panels, inputs, find_kept(resets), sums)


def pack_blocks(w: Tensor, hidden: int) -> Tensor:
    """Return the panels of a matrix [G*H, N]. Each of the G blocks begins with a panel."""
    if padding := -hidden % WIDTH:
        blocks = w.reshape(-1, hidden, w.shape[1])
        w = torch.nn.functional.pad(blocks, (0, 0, 0, padding)).flatten(0, 1)
    return pack(w)


def find_kept(resets: Resets) -> Tensor:
    return torch.empty(0, 0, dtype=torch.bool) if resets.keep is None else resets.keep[..., 0].contiguous()
