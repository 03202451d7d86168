"""Character-level text generation with recurrent networks.

model = charlstm.load("runs/mine")
print("".join(model.generate("Once upon a time", seed=1)))
print(-model.score("to be or not to be").mean(), "nats per character")

for event in charlstm.train("corpus.txt", charlstm.Config()):
    print(event)

print(charlstm.evaluate("runs/corpus", "to be or not to be").bpc, "bits per character")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charlstm.api import evaluate, train
    from charlstm.config import (
        AdaptationConfig,
        Config,
        DataConfig,
        ModelConfig,
        RegularizationConfig,
        SamplingConfig,
        TrainingConfig,
    )
    from charlstm.errors import CharlstmError, DivergedError, ModelFileError, UsageError
    from charlstm.evaluation.metrics import Metrics
    from charlstm.text_model import TextModel, load
    from charlstm.training.events import (
        BestEvaluated,
        Event,
        Finished,
        RolledBack,
        Saved,
        Started,
        Stepped,
        Validated,
    )

__version__ = "0.1.0"

MODULES = {
    "load": "charlstm.text_model",
    "TextModel": "charlstm.text_model",
    "train": "charlstm.api",
    "evaluate": "charlstm.api",
    "Config": "charlstm.config",
    "ModelConfig": "charlstm.config",
    "DataConfig": "charlstm.config",
    "TrainingConfig": "charlstm.config",
    "RegularizationConfig": "charlstm.config",
    "SamplingConfig": "charlstm.config",
    "AdaptationConfig": "charlstm.config",
    "BestEvaluated": "charlstm.training.events",
    "Event": "charlstm.training.events",
    "Started": "charlstm.training.events",
    "Stepped": "charlstm.training.events",
    "Validated": "charlstm.training.events",
    "Saved": "charlstm.training.events",
    "RolledBack": "charlstm.training.events",
    "Finished": "charlstm.training.events",
    "Metrics": "charlstm.evaluation.metrics",
    "CharlstmError": "charlstm.errors",
    "UsageError": "charlstm.errors",
    "DivergedError": "charlstm.errors",
    "ModelFileError": "charlstm.errors",
}
"""The module of each public name, which is imported when the name is first used."""

__all__ = [
    "AdaptationConfig",
    "BestEvaluated",
    "CharlstmError",
    "Config",
    "DataConfig",
    "DivergedError",
    "Event",
    "Finished",
    "Metrics",
    "ModelConfig",
    "ModelFileError",
    "RegularizationConfig",
    "RolledBack",
    "SamplingConfig",
    "Saved",
    "Started",
    "Stepped",
    "TextModel",
    "TrainingConfig",
    "UsageError",
    "Validated",
    "evaluate",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module 'charlstm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
