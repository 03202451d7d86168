"""What runs log, and over what it is drawn. Does not import NumPy, so that --help is fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

AxisName = Literal["step", "time", "epoch", "characters"]

AXES: Mapping[AxisName, str] = {"step": "step", "time": "seconds", "epoch": "passes", "characters": "characters"}
"""The key in metrics.jsonl of each x axis."""


@dataclass(frozen=True)
class Quantity:
    """Something that is logged.

    key: its name in metrics.jsonl.
    label: what it is.
    unit: its unit; empty for none.
    panel: the chart that shows it, which it may share with others of the same unit.
    """

    key: str
    label: str
    unit: str = ""
    panel: str = ""


QUANTITIES: Mapping[str, Quantity] = {
    "validation": Quantity("validation_loss_nats", "validation loss", "nats/char", "loss"),
    "train": Quantity("loss_nats", "training loss", "nats/char", "loss"),
    "lr": Quantity("learning_rate", "learning rate"),
    "gradient": Quantity("gradient_norm", "gradient norm"),
    "speed": Quantity("chars_per_second", "speed", "characters/s"),
    "memory": Quantity("memory_bytes", "memory", "bytes", "memory"),
    "gpu-memory": Quantity("gpu_memory_bytes", "GPU memory", "bytes", "memory"),
}
"""What can be drawn, by name."""


CHOICES: Mapping[str, tuple[str, ...]] = {"loss": ("validation", "train"), **{name: (name,) for name in QUANTITIES}}
"""The quantities that each name of --what draws."""


def is_loss(quantity: Quantity) -> bool:
    """Return whether a quantity is a loss."""
    return quantity.key.endswith("loss_nats")
