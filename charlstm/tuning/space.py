"""The search space: which settings are searched, and the values around the plan that each may have."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from charlstm.config import Config

if TYPE_CHECKING:
    from optuna import Trial

Value = int | float


@dataclass(frozen=True)
class IntRange:
    """A whole number from `low` to `high`, a multiple of `multiple_of`.

    With `log`, values are suggested uniformly on a logarithmic scale.
    """

    low: int
    high: int
    multiple_of: int = 1
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> Value:
        """Return the value that Optuna suggests for a trial."""
        low, high = self.low // self.multiple_of, self.high // self.multiple_of
        return self.decode(trial.suggest_int(name, low, high, log=self.log))

    def decode(self, suggested: Any) -> Value:
        """Return the value of the setting for a parameter of a trial."""
        return int(suggested) * self.multiple_of

    def encode(self, value: Any) -> Any:
        """Return the parameter for the value in the range that is nearest to this one."""
        return round(min(max(value, self.low), self.high) / self.multiple_of)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


@dataclass(frozen=True)
class FloatRange:
    """A number from `low` to `high`, with three digits.

    With `log`, values are suggested uniformly on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> Value:
        """Return the value that Optuna suggests for a trial."""
        return self.decode(trial.suggest_float(name, self.low, self.high, log=self.log))

    def decode(self, suggested: Any) -> Value:
        """Return the value of the setting for a parameter of a trial."""
        return float(f"{suggested:.3g}")

    def encode(self, value: Any) -> Any:
        """Return the parameter for the value in the range that is nearest to this one."""
        return min(max(value, self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


Space = dict[str, IntRange | FloatRange]

SEARCHED = (
    "model.layers",
    "model.hidden",
    "model.dropout",
    "regularization.embedding_dropout",
    "regularization.activation_penalty",
    "regularization.temporal_penalty",
    "training.lr",
    "training.batch_size",
    "training.seq_len",
)
"""The searched settings by `section.key`, except those that the user sets and regularization that the plan lacks.

The cell is not searched: none reached the loss of an LSTM in the same time (docs/results.md). Weight dropout and one
dropout mask per window are not either: both measured worse than what the plan uses.
"""

WIDTH_FACTOR, MIN_WIDTH_FACTOR = 2, 1.5
"""How many times more or fewer units than planned a layer may have: at most, and in any case."""


def space_around(config: Config, sizes: Collection[tuple[int, int]]) -> Space:
    """Return the values to search for each setting: around those planned for the time of a trial.

    The plan is near the best already, so that most values far from it would be wasted trials.

    sizes: layers and units of the models that are predicted to be nearly as good.
    """
    model, training, regularization = config.model, config.training, config.regularization
    unit = 16 if model.hidden >= 32 else 1  # a GPU is slower at other sizes
    depths, widths = {model.layers, *(layers for layers, _ in sizes)}, [hidden for _, hidden in sizes]
    narrow = max(min(*widths, model.hidden / MIN_WIDTH_FACTOR), model.hidden / WIDTH_FACTOR)
    wide = min(max(*widths, model.hidden * MIN_WIDTH_FACTOR), model.hidden * WIDTH_FACTOR)
    regularizers = {
        f"regularization.{name}": FloatRange(strength / 4, strength * 4, log=True)
        for name in ("activation_penalty", "temporal_penalty")
        if (strength := getattr(regularization, name))
    }
    if rate := regularization.embedding_dropout:
        regularizers["regularization.embedding_dropout"] = FloatRange(0.0, min(rate * 2, 0.95))
    return {
        "model.layers": IntRange(min(depths), max(depths)),
        "model.hidden": IntRange(ceil(narrow / unit) * unit, int(wide) // unit * unit, multiple_of=unit, log=True),
        "model.dropout": FloatRange(max(model.dropout - 0.2, 0.0), min(model.dropout + 0.2, 0.95)),
        **regularizers,
        "training.lr": FloatRange(training.lr / 3, training.lr * 3, log=True),
        "training.batch_size": IntRange(max(training.batch_size // 2, 1), training.batch_size * 2, log=True),
        "training.seq_len": IntRange(max(training.seq_len // 2, 1), training.seq_len * 2, log=True),
    }


def unset_keys(given: Collection[str]) -> list[str]:
    """Return the searched settings that the user did not set."""
    return [key for key in SEARCHED if key not in given]


def get_setting(config: Config, key: str) -> Any:
    """Return the value of `section.key`, as TOML has it."""
    section, _, name = key.partition(".")
    return config.to_dict()[section][name]
