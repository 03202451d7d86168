"""A training step as one writes it with torch alone, in a process of its own with torch's own settings.

    python benchmarks/plain_torch.py CELL LAYERS HIDDEN BATCH TIME

Run by training.py. For each line on stdin it does one step and writes a line. charlstm is not imported: it would set
up threads and memory.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

SYMBOLS, EMBEDDING = 65, 64
CORES: dict[str, type[nn.LSTM | nn.GRU | nn.RNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class PlainModel(nn.Module):
    """A language model over SYMBOLS symbols."""

    def __init__(self, cell: str, layers: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, EMBEDDING)
        self.core = CORES[cell](EMBEDDING, hidden, layers)
        self.head = nn.Linear(hidden, SYMBOLS)

    def compute_loss(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of the targets [T, B] after the ids [T, B], in nats."""
        logits = self.head(self.core(self.embedding(ids))[0])
        return cross_entropy(logits.flatten(0, 1), targets.flatten())


def main() -> None:
    cell, *numbers = sys.argv[1:]
    layers, hidden, batch, time = map(int, numbers)
    model = PlainModel(cell, layers, hidden)
    optimizer = torch.optim.AdamW(model.parameters())
    ids, targets = torch.randint(SYMBOLS, (2, time, batch))
    for _ in sys.stdin:
        loss = model.compute_loss(ids, targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(loss.item(), flush=True)


if __name__ == "__main__":
    main()
