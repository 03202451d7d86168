"""The search space: which settings are searched, and the values around the plan that each may have."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from charlstm.config import Config

if TYPE_CHECKING:
    from optuna import Trial

Value = str | int | float


@dataclass(frozen=True)
class Categorical:
    """One of a few names."""

    choices: tuple[str, ...]

    def suggest(self, trial: Trial, name: str) -> Value:
        """Return the value that Optuna suggests for a trial."""
        return str(trial.suggest_categorical(name, self.choices))

    def decode(self, suggested: Any) -> Value:
        """Return the value of the setting for a parameter of a trial."""
        return str(suggested)

    def encode(self, value: Any) -> Any:
        """Return the parameter for this value of the setting; the first choice if it has no parameter."""
        return value if value in self.choices else self.choices[0]

    def __str__(self) -> str:
        return ", ".join(self.choices)


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


Space = dict[str, Categorical | IntRange | FloatRange]

SEARCHED = (
    "model.cell",
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
"""The searched settings by `section.key`, except those that the user sets."""


def space_around(config: Config) -> Space:
    """Return the values to search for each setting: around those planned for the time of a trial.

    The plan is near the best already, so that most values far from it would be wasted trials. Weight dropout and one
    dropout mask per window are not searched: both measured worse than what the plan uses (docs/results.md).
    """
    model, training, regularization = config.model, config.training, config.regularization
    unit = 16 if model.hidden >= 32 else 1  # a GPU is slower at other sizes
    penalties = {
        f"regularization.{name}": FloatRange(strength / 4, strength * 4, log=True)
        for name in ("activation_penalty", "temporal_penalty")
        if (strength := getattr(regularization, name))
    }
    return {
        "model.cell": Categorical(tuple(dict.fromkeys((model.cell, "lstm", "gru")))),
        "model.layers": IntRange(max(model.layers - 1, 1), model.layers + 1),
        "model.hidden": IntRange(ceil(model.hidden / 2 / unit) * unit, model.hidden * 2, multiple_of=unit, log=True),
        "model.dropout": FloatRange(max(model.dropout - 0.2, 0.0), min(model.dropout + 0.2, 0.95)),
        "regularization.embedding_dropout": FloatRange(0.0, min(regularization.embedding_dropout + 0.1, 0.95)),
        **penalties,
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
