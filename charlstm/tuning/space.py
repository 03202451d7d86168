"""The search space: which settings are searched, and the values that each may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charlstm.config import SECTIONS, Config
from charlstm.settings import Settings

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

SPACE: Space = {
    "model.cell": Categorical(("lstm", "gru")),
    "model.layers": IntRange(1, 3),
    "model.hidden": IntRange(64, 1024, multiple_of=32, log=True),  # a GPU is far slower at other sizes
    "model.dropout": FloatRange(0.0, 0.6),
    "regularization.dropout_mask": Categorical(("step", "window")),
    "regularization.embedding_dropout": FloatRange(0.0, 0.2),
    "regularization.weight_dropout": FloatRange(0.0, 0.5),
    "training.lr": FloatRange(1e-3, 3e-2, log=True),
    "training.batch_size": IntRange(8, 128, multiple_of=8, log=True),
    "training.seq_len": IntRange(32, 256, multiple_of=16, log=True),
}
"""The searched settings by `section.key`. To search another one, add a line."""


def unset_space(given: Settings) -> Space:
    """Return the search space without the settings that the user set."""
    return {key: values for key, values in SPACE.items() if key not in given}


def get_setting(config: Config, key: str) -> Any:
    """Return the value of `section.key`, as TOML has it."""
    section, _, name = key.partition(".")
    return config.to_dict()[section][name]


def fixed_terms(config: Config, space: Space) -> dict[str, Any]:
    """Return what must be the same for trials to be comparable: every fixed setting, and the range of the others."""
    keys = [f"{name}.{key}" for name in SECTIONS for key in config.to_dict()[name]]
    fixed = {key: get_setting(config, key) for key in keys if key != "data.corpus"}
    return fixed | {key: str(values) for key, values in space.items()}
