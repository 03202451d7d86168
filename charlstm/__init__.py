"""charlstm: character-level text generation with recurrent networks.

model = charlstm.load("runs/mine")
print("".join(model.generate("Once upon a time", seed=1)))
print(-model.score("to be or not to be").mean(), "nats a character")

for event in charlstm.train("corpus.txt", charlstm.Config()):
    print(event)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charlstm.api import train
    from charlstm.config import Config, DataConfig, ModelConfig, SamplingConfig, TrainingConfig
    from charlstm.errors import CharlstmError, DivergedError, ModelFileError, UsageError
    from charlstm.text_model import TextModel, load

__version__ = "0.1.0"

HOMES = {
    "load": "charlstm.text_model",
    "TextModel": "charlstm.text_model",
    "train": "charlstm.api",
    "Config": "charlstm.config",
    "ModelConfig": "charlstm.config",
    "DataConfig": "charlstm.config",
    "TrainingConfig": "charlstm.config",
    "SamplingConfig": "charlstm.config",
    "CharlstmError": "charlstm.errors",
    "UsageError": "charlstm.errors",
    "DivergedError": "charlstm.errors",
    "ModelFileError": "charlstm.errors",
}

__all__ = [
    "CharlstmError",
    "Config",
    "DataConfig",
    "DivergedError",
    "ModelConfig",
    "ModelFileError",
    "SamplingConfig",
    "TextModel",
    "TrainingConfig",
    "UsageError",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'charlstm' has no attribute {name!r}")
