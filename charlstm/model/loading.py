"""A model file as the network that evaluates it: on the fastest device there is, in float32."""

from __future__ import annotations

from charlstm.model.bidirectional import BidirectionalModel, build_model
from charlstm.model.device import choose_device
from charlstm.model.language_model import LanguageModel
from charlstm.storage.model import ModelFile


def load_language_model(file: ModelFile) -> LanguageModel:
    """The one that reads forwards."""
    model = load_torch_model(file.select_direction("forward"))
    assert isinstance(model, LanguageModel)
    return model


def load_torch_model(file: ModelFile) -> LanguageModel | BidirectionalModel:
    """All that the file holds."""
    boundary = file.vocabulary.end_of_document
    device = choose_device(file.config.model, precision="fp32", resets=boundary is not None)
    model = build_model(file.config.model, file.vocabulary.size, device.engine, end_of_document=boundary)
    model.load_weights(file.weights)
    return model.to(device.name)
