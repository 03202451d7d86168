"""Embeddings of pairs of characters, which are added to those of the characters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from charlstm.architecture import bigram_row
from charlstm.config import ModelConfig
from charlstm.model.kernels.resets import Resets


class Bigrams(nn.Module):
    """A table [K, E] with a row for a pair of the last symbol and the current one; pairs may share a row by chance.

    The recurrent layers then need not store the last symbol to know the pair. The rows are zeros at first.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.bigrams, config.embedding))

    def forward(self, ids: Tensor, last: Tensor, resets: Resets) -> tuple[Tensor, Tensor]:
        """Return the embeddings of the pairs, [T, B, E], zeros where there is no last symbol, and the last symbols.

        ids: the symbols [T, B].
        last: the symbol before them, plus 1, or 0 if there is none [B, 1].
        """
        before = torch.cat([last.t().long(), ids[:-1] + 1])[..., None]
        before = resets.mask(before)
        rows = bigram_row(before[..., 0], ids, len(self.weight))
        pairs = embedding(rows, self.weight) * (before > 0)
        return pairs, (ids[-1:] + 1).t().to(last.dtype)
