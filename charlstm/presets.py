"""What ships with the package: the presets in configs/ and the small corpora in corpora/."""

from __future__ import annotations

import tomllib
from pathlib import Path

from charlstm.errors import UsageError
from charlstm.settings import Settings, from_file, suggest_name

PACKAGE = Path(__file__).parent
CORPUS = "english.txt"


def bundled_folder(folder: str) -> Path:
    """`configs` or `corpora`: inside the package where it is installed, beside it in a checkout."""
    inside = PACKAGE / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def preset_names() -> list[str]:
    """The presets, by name."""
    return sorted(path.stem for path in bundled_folder("configs").glob("*.toml"))


def describe_preset(name: str) -> str:
    """What a preset says of itself in a line."""
    return str(tomllib.loads((bundled_folder("configs") / f"{name}.toml").read_text("utf-8"))["about"])


def load_preset(name: str) -> Settings:
    """The settings of a preset. Raises UsageError for one that there is not."""
    if name not in preset_names():
        raise UsageError(f"--preset: there is no preset {name!r}", suggest_name(name, preset_names()))
    return from_file(bundled_folder("configs") / f"{name}.toml")


def bundled_corpus() -> Path:
    """The text that is trained on when none is named."""
    return bundled_folder("corpora") / CORPUS
