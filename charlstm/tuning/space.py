"""What is searched: the settings that matter and where to look for their values. Optuna draws, this says from what."""

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
    """One of a few words."""

    choices: tuple[str, ...]

    def suggest(self, trial: Trial, name: str) -> Value:
        return str(trial.suggest_categorical(name, self.choices))

    def decode(self, drawn: Any) -> Value:
        return str(drawn)

    def encode(self, value: Any) -> Any:
        """What must be drawn for this value, or for the nearest there is."""
        return value if value in self.choices else self.choices[0]

    def __str__(self) -> str:
        return ", ".join(self.choices)


@dataclass(frozen=True)
class IntRange:
    """A whole number, a multiple of `unit`; `log`: as likely between 1 and 2 as between 2 and 4."""

    low: int
    high: int
    multiple_of: int = 1
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> Value:
        return self.decode(
            trial.suggest_int(name, self.low // self.multiple_of, self.high // self.multiple_of, log=self.log)
        )

    def decode(self, drawn: Any) -> Value:
        return int(drawn) * self.multiple_of

    def encode(self, value: Any) -> Any:
        return round(min(max(value, self.low), self.high) / self.multiple_of)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


@dataclass(frozen=True)
class FloatRange:
    """A number, to three digits."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> Value:
        return self.decode(trial.suggest_float(name, self.low, self.high, log=self.log))

    def decode(self, drawn: Any) -> Value:
        return float(f"{drawn:.3g}")

    def encode(self, value: Any) -> Any:
        return min(max(value, self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


Space = dict[str, Categorical | IntRange | FloatRange]

SPACE: Space = {
    "model.cell": Categorical(("lstm", "gru")),
    "model.layers": IntRange(1, 3),
    "model.hidden": IntRange(64, 1024, multiple_of=32, log=True),  # multiples, for a GPU is far slower at odd sizes
    "model.dropout": FloatRange(0.0, 0.6),
    "regularization.dropout_mask": Categorical(("step", "window")),
    "regularization.embedding_dropout": FloatRange(0.0, 0.2),
    "regularization.weight_dropout": FloatRange(0.0, 0.5),
    "training.lr": FloatRange(1e-3, 3e-2, log=True),
    "training.batch_size": IntRange(8, 128, multiple_of=8, log=True),
    "training.seq_len": IntRange(32, 256, multiple_of=16, log=True),
}
"""The settings that are searched, unless they were given. One more is one more line."""


def unset_space(given: Settings) -> Space:
    """What is left to search: who gives a setting wants it kept."""
    return {key: values for key, values in SPACE.items() if key not in given}


def get_setting(config: Config, key: str) -> Any:
    """The value of "section.key", as TOML would hold it."""
    section, _, name = key.partition(".")
    return config.to_dict()[section][name]


def fixed_terms(config: Config, space: Space) -> dict[str, Any]:
    """What must stay the same for trials to be comparable: the settings that are fixed, the ranges of the others."""
    keys = [f"{name}.{key}" for name in SECTIONS for key in config.to_dict()[name]]
    fixed = {key: get_setting(config, key) for key in keys if key != "data.corpus"}
    return fixed | {key: str(values) for key, values in space.items()}
