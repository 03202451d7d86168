"""Small untrained models."""

from __future__ import annotations

import numpy as np

from charlstm.architecture import weight_shapes
from charlstm.config import Config, DataConfig, ModelConfig
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


LETTERS = CharVocabulary("\n" + "abcdefgh")
MODELS = {both: make_untrained_model(LETTERS, bidirectional=both) for both in (True, False)}
