"""Small untrained models."""

from __future__ import annotations

import numpy as np

from charlstm.architecture import EMBEDDING, HEAD, layer_weight_name, qualify_name, weight_shapes
from charlstm.config import Config, DataConfig, Direction, ModelConfig
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import CharVocabulary, Vocabulary


def make_untrained_model(
    vocabulary: Vocabulary, data: DataConfig = DataConfig(), bidirectional: bool = True
) -> ModelFile:
    config = Config(ModelConfig(bidirectional=bidirectional, layers=2, hidden=8, embedding=4), data)
    random = np.random.default_rng(0)
    sizes = weight_shapes(config.model, vocabulary.size)
    return ModelFile(
        config, vocabulary, {name: random.standard_normal(size).astype("f") for name, size in sizes.items()}
    )


def make_chain_model(length: int) -> ModelFile:
    """Return a model whose documents consist of `length` distinct characters, each determined by its neighbor."""
    vocabulary = CharVocabulary("".join(map(chr, range(0x4E00, 0x4E00 + length))), documents=True)
    size = vocabulary.size
    config = Config(
        ModelConfig(cell="rnn", bidirectional=True, hidden=size, embedding=size), DataConfig(document="line")
    )
    weights = {name: np.zeros(shape, "f") for name, shape in weight_shapes(config.model, size).items()}
    sure = 25 * np.eye(size, dtype="f")
    weights[EMBEDDING] = sure
    steps: dict[Direction, int] = {"forward": 1, "backward": -1}
    for direction, step in steps.items():
        weights[qualify_name(layer_weight_name(0, "weight_ih"), direction)] = sure
        weights[qualify_name(HEAD.weight, direction)] = np.roll(sure, step, 0)
    return ModelFile(config, vocabulary, weights)


LETTERS = CharVocabulary("\n" + "abcdefgh")
MODELS = {both: make_untrained_model(LETTERS, bidirectional=both) for both in (True, False)}
