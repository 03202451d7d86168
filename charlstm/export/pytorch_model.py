"""A charlstm model in torch.nn, for torch and safetensors only. README.md shows how to load it and write with it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class CharacterModel(nn.Module):
    """`logits, state = model(ids, state)`: ids [T, N], logits [T, N, V]. A state of None is that before a text."""

    def __init__(self, size: int, model: dict[str, Any]) -> None:
        super().__init__()
        layers, hidden, embedding = model["layers"], model["hidden"], model["embedding"]
        layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[model["cell"]]
        self.between, self.head_layers = model["between"], layers if model["head"] == "all" else 1
        self.embedding = nn.Embedding(size, embedding)
        self.bigrams = nn.Embedding(model["bigrams"], embedding) if model.get("bigrams") else None
        self.layers = nn.ModuleList(layer(hidden if k else embedding, hidden) for k in range(layers))
        gated = range(1, layers) if self.between == "highway" else ()
        self.highways = nn.ModuleDict({str(k): nn.Linear(hidden, hidden) for k in gated})
        inputs = hidden * self.head_layers
        width = embedding if model["head"] == "tied" else inputs
        self.projection = nn.Linear(inputs, width, bias=False) if width != inputs else nn.Identity()
        self.head = nn.Linear(width, size)

    def forward(self, ids: Tensor, state: list[Any] | None = None) -> tuple[Tensor, list[Any]]:
        *states, last = state or [*[None] * len(self.layers), torch.zeros_like(ids[:1])]
        x, before = self.embedding(ids), torch.cat([last, ids[:-1] + 1])  # the symbol before each, plus 1; 0 for none
        if self.bigrams is not None:
            rows = (before * 1_000_003 + ids) % self.bigrams.num_embeddings
            x = x + self.bigrams(rows) * (before > 0)[..., None]
        outputs: list[Tensor] = []
        for k, layer in enumerate(self.layers):
            y, states[k] = layer(x, states[k])
            if k and self.between == "residual":
                y = x + y
            if k and self.between == "highway":
                y = torch.lerp(x, y, self.highways[str(k)](x).sigmoid())
            outputs.append(x := y)
        features = torch.cat(outputs[-self.head_layers :], -1)
        return self.head(self.projection(features)), [*states, ids[-1:] + 1]


def load_folder(folder: Path, backward: bool = False) -> tuple[CharacterModel, dict[str, Any]]:
    """Return a model and its configuration; `backward` chooses the backward direction of a bidirectional model."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    weights, prefix = load_file(folder / "model.safetensors"), "backward."
    if backward:
        weights |= {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    weights.setdefault("head.weight", weights["embedding.weight"])  # of a head with tied weights
    model = CharacterModel(config["size"], config["model"])
    model.load_state_dict({name: weights[name.removesuffix("_l0")] for name in model.state_dict()})
    return model.eval(), config
