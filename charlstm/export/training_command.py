"""The command line that trains with the settings of a model."""

from __future__ import annotations

import shlex
from typing import Any

from charlstm.config import SECTIONS, Config
from charlstm.storage.model import without_paths

OFTEN_CHOSEN = ("data.split", "training.batch_size", "training.seq_len", "training.look_ahead")
"""Settings that `train` chooses for a small or a large text if they are not given."""

CHOSEN_FOR_TIME = (
    *("model.layers", "model.hidden", "model.embedding", "model.bigrams", "model.dropout", "training.lr"),
    *("training.epochs", "training.validate_every", "training.validation_chars"),
    *(f"regularization.{name}" for name in ("embedding_dropout", "activation_penalty", "temporal_penalty")),
)
"""Settings that `train --max-time` chooses."""


def format_training_command(config: Config) -> str:
    """Return the command, with every setting that has not its default or could be chosen otherwise.

    It has no path: files are named without their folders, and a folder is FOLDER.
    """
    data = without_paths(config.data)
    words = ["charlstm", "train", *("FOLDER" if name == data.glob else name for name in data.corpus)]
    always = {*OFTEN_CHOSEN, *(CHOSEN_FOR_TIME if config.training.max_time else ())}
    if not config.model.bidirectional:
        always.remove("training.look_ahead")
    for section, kind in SECTIONS.items():
        for name, f in kind.__dataclass_fields__.items():
            value, default = getattr(getattr(config, section), name), f.default
            if name != "corpus" and (value != default or f"{section}.{name}" in always):
                words += format_option(section, name, value, has_flag=bool(f.metadata["flag"]))
    return shlex.join(words)


def format_option(section: str, name: str, value: Any, *, has_flag: bool) -> list[str]:
    """Return the words of the command line that set a setting."""
    text = ",".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
    if not has_flag:
        return ["--set", f"{section}.{name}={text}"]
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is True else [flag, text]
