"""Output layers: logits from the outputs of the recurrent layers."""

from __future__ import annotations

from torch import Tensor, nn


class Head(nn.Linear):
    """A linear output layer: logits [..., V] from inputs [..., N].

    With tied weights (Press & Wolf 2017), the matrix is that of the embedding [V, E], after a projection from N to E
    where they differ. `project` is all of the head except the last product. The loss takes that product, with `weight`
    and `bias`, in chunks.

    Args:
        inputs: N.
        embedding: gives V, and the matrix of a tied head.
        tied: whether to use that matrix.
    """

    def __init__(self, inputs: int, embedding: nn.Embedding, tied: bool) -> None:
        width = embedding.embedding_dim if tied else inputs
        super().__init__(width, embedding.num_embeddings)
        self.projection: nn.Module = nn.Linear(inputs, width, bias=False) if width != inputs else nn.Identity()
        nn.init.zeros_(self.bias)
        if tied:
            self.weight = embedding.weight

    def project(self, x: Tensor) -> Tensor:
        """Return the inputs [..., M] of the last product, from inputs [..., N] of the head."""
        projected: Tensor = self.projection(x)
        return projected


class JointHead(Head):
    """A head of both directions, with a layer of tanh units in front.

    Without that layer the logits would be a sum of what each direction contributes. With it, a character can be likely
    only given both sides.
    """

    def __init__(self, inputs: int, width: int, embedding: nn.Embedding, tied: bool) -> None:
        super().__init__(width, embedding, tied)
        self.mix = nn.Linear(inputs, width)

    def project(self, x: Tensor) -> Tensor:
        return super().project(self.mix(x).tanh())
