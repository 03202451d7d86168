"""What predicts: logits from what goes up from the layers."""

from __future__ import annotations

from torch import Tensor, nn


class Head(nn.Linear):
    """Logits [..., V] of what it reads, [..., N]: one matrix or, tied, by way of the embedding's own rows.

    `project` is all of it but the last product, whose `weight` [V, M] and `bias` the loss takes over the vocabulary
    a chunk at a time.
    """

    def __init__(self, reads: int, embedding: nn.Embedding, tied: bool) -> None:
        width = embedding.embedding_dim if tied else reads
        super().__init__(width, embedding.num_embeddings)
        self.projection: nn.Module = nn.Linear(reads, width, bias=False) if width != reads else nn.Identity()
        nn.init.zeros_(self.bias)
        if tied:
            self.weight = embedding.weight

    def project(self, x: Tensor) -> Tensor:
        projected: Tensor = self.projection(x)
        return projected


class JointHead(Head):
    """A head with a layer of tanh units before it, in which what it reads of two networks meets.

    Without it the logits would be a sum of what either says; with it a character may be likely only given both.
    """

    def __init__(self, reads: int, width: int, embedding: nn.Embedding, tied: bool) -> None:
        super().__init__(width, embedding, tied)
        self.mix = nn.Linear(reads, width)

    def project(self, x: Tensor) -> Tensor:
        return super().project(self.mix(x).tanh())
