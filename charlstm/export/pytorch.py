"""A model as a folder for torch.nn: the model file, its description as JSON, and a module that loads both."""

from __future__ import annotations

import json
from pathlib import Path

from charlstm.architecture import TORCH_CELLS
from charlstm.errors import UsageError
from charlstm.export.description import describe_model
from charlstm.storage.files import write_atomically
from charlstm.storage.model import ModelFile

MODULE = Path(__file__).with_name("pytorch_model.py")
"""The file that is copied as model.py. charlstm itself does not import it."""


def check_pytorch(file: ModelFile) -> None:
    """Raise UsageError for a model that the recurrent modules of torch.nn cannot compute."""
    model, hint = file.config.model, "--onnx exports every model"
    if model.cell not in TORCH_CELLS:
        raise UsageError(
            f"--pytorch: torch.nn has no module for the cell {model.cell}, only for lstm, gru and rnn", hint
        )
    if model.activation != "tanh":
        raise UsageError(f"--pytorch: the modules of torch.nn have no {model.activation} in place of tanh", hint)
    if model.zoneout:
        raise UsageError(f"--pytorch: torch.nn has no zoneout, and this model has {model.zoneout:g}", hint)


def write_pytorch(file: ModelFile, folder: Path) -> list[Path]:
    """Write a model to a folder and return the paths of its files. Raises UsageError as `check_pytorch` does."""
    check_pytorch(file)
    weights, config, module = (folder / name for name in ("model.safetensors", "config.json", "model.py"))
    file.save(weights)
    text = json.dumps(describe_model(file), ensure_ascii=False, indent=2)
    write_atomically(config, text.encode() + b"\n")
    write_atomically(module, MODULE.read_bytes())
    return [weights, config, module]
