"""What ships with the package: the presets in configs/ and the small corpora in corpora/."""

from __future__ import annotations

import tomllib
from pathlib import Path

from charlstm.errors import UsageError
from charlstm.settings import Settings, did_you_mean, from_file

PACKAGE = Path(__file__).parent
CORPUS = "english.txt"


def shipped(folder: str) -> Path:
    """`configs` or `corpora`: inside the package where it is installed, beside it in a checkout."""
    inside = PACKAGE / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def names() -> list[str]:
    """The presets, by name."""
    return sorted(path.stem for path in shipped("configs").glob("*.toml"))


def about(name: str) -> str:
    """What a preset says of itself in a line."""
    return str(tomllib.loads((shipped("configs") / f"{name}.toml").read_text("utf-8"))["about"])


def preset(name: str) -> Settings:
    """The settings of a preset. Raises UsageError for one that there is not."""
    if name not in names():
        raise UsageError(f"--preset: there is no preset {name!r}", did_you_mean(name, names()))
    return from_file(shipped("configs") / f"{name}.toml")


def corpus() -> Path:
    """The text that is trained on when none is named."""
    return shipped("corpora") / CORPUS
