"""Model files as torch modules for evaluation: on the fastest available device, in float32."""

from __future__ import annotations

from charlstm.model.bidirectional import Model, build_model
from charlstm.model.device import choose_device
from charlstm.model.language_model import LanguageModel
from charlstm.storage.model import ModelFile


def load_torch_model(file: ModelFile) -> Model:
    """Return the model of the file, in both directions if it has both."""
    end_of_document = file.vocabulary.end_of_document
    device = choose_device(file.config.model, precision="fp32", resets=end_of_document is not None)
    model = build_model(file.config.model, file.vocabulary.size, device.engine, end_of_document=end_of_document)
    model.load_weights(file.weights)
    return model.to(device.name)


def load_language_model(file: ModelFile) -> LanguageModel:
    """Return the forward model of the file."""
    model = load_torch_model(file.select_direction("forward"))
    assert isinstance(model, LanguageModel)
    return model
