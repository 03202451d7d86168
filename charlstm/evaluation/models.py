"""A model file as the network that evaluates it: on the fastest device there is, in float32."""

from __future__ import annotations

from charlstm.model.bidirectional import BidirectionalModel, model_of
from charlstm.model.device import choose
from charlstm.model.language_model import LanguageModel
from charlstm.modelfile import ModelFile


def language_model(file: ModelFile) -> LanguageModel:
    """The one that reads forwards."""
    model = network(file.half("forward"))
    assert isinstance(model, LanguageModel)
    return model


def network(file: ModelFile) -> LanguageModel | BidirectionalModel:
    """All that the file holds."""
    boundary = file.vocabulary.boundary
    device = choose(file.config.model, precision="fp32", resets=boundary is not None)
    model = model_of(file.config.model, file.vocabulary.size, device.engine, boundary=boundary)
    model.load_weights(file.weights)
    return model.to(device.name)
