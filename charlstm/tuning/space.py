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

    values: tuple[str, ...]

    def draw(self, trial: Trial, name: str) -> Value:
        return str(trial.suggest_categorical(name, self.values))

    def value(self, drawn: Any) -> Value:
        return str(drawn)

    def drawn(self, value: Any) -> Any:
        """What must be drawn for this value, or for the nearest there is."""
        return value if value in self.values else self.values[0]

    def __str__(self) -> str:
        return ", ".join(self.values)


@dataclass(frozen=True)
class IntRange:
    """A whole number, a multiple of `unit`; `log`: as likely between 1 and 2 as between 2 and 4."""

    least: int
    most: int
    unit: int = 1
    log: bool = False

    def draw(self, trial: Trial, name: str) -> Value:
        return self.value(trial.suggest_int(name, self.least // self.unit, self.most // self.unit, log=self.log))

    def value(self, drawn: Any) -> Value:
        return int(drawn) * self.unit

    def drawn(self, value: Any) -> Any:
        return round(min(max(value, self.least), self.most) / self.unit)

    def __str__(self) -> str:
        return f"{self.least} to {self.most}"


@dataclass(frozen=True)
class FloatRange:
    """A number, to three digits."""

    least: float
    most: float
    log: bool = False

    def draw(self, trial: Trial, name: str) -> Value:
        return self.value(trial.suggest_float(name, self.least, self.most, log=self.log))

    def value(self, drawn: Any) -> Value:
        return float(f"{drawn:.3g}")

    def drawn(self, value: Any) -> Any:
        return min(max(value, self.least), self.most)

    def __str__(self) -> str:
        return f"{self.least:g} to {self.most:g}"


Space = dict[str, Categorical | IntRange | FloatRange]

SPACE: Space = {
    "model.cell": Categorical(("lstm", "gru")),
    "model.layers": IntRange(1, 3),
    "model.hidden": IntRange(64, 1024, unit=32, log=True),  # multiples, for a GPU is far slower at odd sizes
    "model.dropout": FloatRange(0.0, 0.6),
    "regularization.dropout_mask": Categorical(("step", "window")),
    "regularization.embedding_dropout": FloatRange(0.0, 0.2),
    "regularization.weight_dropout": FloatRange(0.0, 0.5),
    "training.lr": FloatRange(1e-3, 3e-2, log=True),
    "training.batch_size": IntRange(8, 128, unit=8, log=True),
    "training.seq_len": IntRange(32, 256, unit=16, log=True),
}
"""The settings that are searched, unless they were given. One more is one more line."""


def unset_space(given: Settings) -> Space:
    """What is left to search: who gives a setting wants it kept."""
    return {key: values for key, values in SPACE.items() if key not in given}


def get_setting(config: Config, key: str) -> Any:
    """The value of "section.key", as TOML would hold it."""
    section, _, name = key.partition(".")
    return config.to_dict()[section][name]


def comparable_terms(config: Config, space: Space) -> dict[str, Any]:
    """What must stay the same for trials to be comparable: the settings that are fixed, the ranges of the others."""
    keys = [f"{name}.{key}" for name in SECTIONS for key in config.to_dict()[name]]
    fixed = {key: get_setting(config, key) for key in keys if key != "data.corpus"}
    return fixed | {key: str(values) for key, values in space.items()}
