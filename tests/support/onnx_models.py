"""Exported ONNX models, run by onnxruntime."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from charlstm.architecture import weight_shapes
from charlstm.config import Config, DataConfig, ModelConfig
from charlstm.matrices import Array
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import CharVocabulary, Ids, Vocabulary

LETTERS = CharVocabulary("\n abcdefgh")


def make_random_model(config: ModelConfig, vocabulary: Vocabulary = LETTERS) -> ModelFile:
    """Return a model with random weights of about the size that they have before training."""
    random = np.random.default_rng(0)
    size = 1 / np.sqrt(config.hidden)
    weights = {
        name: random.uniform(-size, size, shape).astype(np.float32)
        for name, shape in weight_shapes(config, vocabulary.size).items()
    }
    in_documents = vocabulary.end_of_document is not None
    data = DataConfig(level=vocabulary.level, document="line" if in_documents else "stream")
    return ModelFile(Config(config, data), vocabulary, weights)


class OnnxModel:
    """A graph in onnxruntime. It carries the state of N sequences."""

    def __init__(self, data: bytes, n: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(data, options)
        self.about: dict[str, Any] = json.loads(self.session.get_modelmeta().custom_metadata_map["charlstm"])
        types = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
        self.state = {
            each.name: np.zeros((n, *each.shape[1:]), types[each.type]) for each in self.session.get_inputs()[1:]
        }

    def read(self, ids: Ids) -> Array:
        """Return the logits after ids: [N] in a graph of one step, [T, N] in one of a sequence."""
        names = [each.name for each in self.session.get_outputs()]
        logits, *after = self.session.run(names, {"ids": ids, **self.state})
        self.state = {name.removeprefix("next_"): value for name, value in zip(names[1:], after, strict=True)}
        return np.asarray(logits)

    def losses(self, ids: Ids) -> NDArray[np.float64]:
        """Return the loss of each id [T, N] but the first, in nats [T - 1, N]; of a graph of a sequence."""
        logits = self.read(ids)[:-1].astype(np.float64)
        log_sums = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
        return np.asarray(log_sums - np.take_along_axis(logits, ids[1:, :, None], -1)[..., 0])
