"""A model with hand-built units, and a text in which there is something to find."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlstm.architecture import weight_shapes
from charlstm.config import Config, ModelConfig
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import CharVocabulary

HIDDEN = 64
COLUMN, QUOTE = 17, 42
"""Units whose cell state is a constant times the column, and 1 between quotes."""

STEEP = 40.0
"""A sum under a gate that opens or closes it."""


def planted_text(length: int, seed: int) -> str:
    """Return words in lines that are wrapped before column 70, some of them quoted and some in parentheses."""
    random = np.random.default_rng(seed)
    pieces: list[str] = []
    size = 0
    while size < 2 * length:
        words = ["".join(random.choice(list("etaoinshrdlu"), random.integers(1, 9))) for _ in range(12)]
        inner = " ".join(words)[: random.integers(5, 61)].strip()
        plain = " ".join(words[: random.integers(2, 12)])
        pieces += [plain, (f'"{inner}"', f"({inner})")[random.integers(2)]]
        size += len(plain) + len(inner)
    return wrap(" ".join(pieces))[:length]


def wrap(text: str, width: int = 70) -> str:
    """Replace the last space before each column `width` of a line by a newline."""
    lines = []
    while len(text) > width:
        end = text.rfind(" ", 0, width)
        lines.append(text[:end])
        text = text[end + 1 :]
    return "\n".join([*lines, text])


def planted_model(text: str, permutation: NDArray[np.int64] | None = None) -> ModelFile:
    """Return an LSTM with random weights in which two units are built by hand. `permutation` reorders the units."""
    vocabulary = CharVocabulary("".join(sorted(set(text))))
    size = vocabulary.size
    config = Config(model=ModelConfig(hidden=HIDDEN, embedding=size))
    random = np.random.default_rng(0)
    weights = {
        name: random.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in weight_shapes(config.model, size).items()
    }
    weights["embedding.weight"] = np.eye(size, dtype=np.float32)
    newline, quote = vocabulary.encode('\n"')
    gates = weights["layers.0.weight_ih"].reshape(4, HIDDEN, size)  # input, forget, candidate, output
    feedback = weights["layers.0.weight_hh"].reshape(4, HIDDEN, HIDDEN)
    biases = weights["layers.0.bias_ih"].reshape(4, HIDDEN)
    weights["layers.0.bias_hh"][:] = 0
    for unit in (COLUMN, QUOTE):
        gates[:, unit], feedback[:, unit], biases[:, unit] = 0, 0, STEEP
    biases[2, COLUMN] = 0.0125
    gates[:2, COLUMN, newline] = -2 * STEEP
    biases[0, QUOTE] = -STEEP
    gates[0, QUOTE, quote] = 2 * STEEP
    gates[1, QUOTE, quote] = -2 * STEEP
    feedback[0, QUOTE, QUOTE] = -3 * STEEP  # a quote that is read within quotes closes them
    if permutation is not None:
        for k in range(4):
            gates[k], biases[k] = gates[k][permutation], biases[k][permutation]
            feedback[k] = feedback[k][permutation][:, permutation]
        weights["head.weight"] = weights["head.weight"][:, permutation]
    return ModelFile(config, vocabulary, weights)
