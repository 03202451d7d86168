"""The presets in configs/ and the corpora in corpora/, which ship with the package."""

from __future__ import annotations

from pathlib import Path

from charlstm.errors import UsageError
from charlstm.settings import Settings, from_file, suggest_name

PACKAGE = Path(__file__).parent
DEFAULT_CORPUS = "english.txt"


def bundled_folder(folder: str) -> Path:
    """Return the path of `configs` or `corpora`: in the package if it is installed, next to it in a checkout."""
    inside = PACKAGE / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(path.stem for path in bundled_folder("configs").glob("*.toml"))


def describe_preset(name: str) -> str:
    """Return the one-line description of a preset."""
    import tomllib  # deferred: most commands do without it

    return str(tomllib.loads((bundled_folder("configs") / f"{name}.toml").read_text("utf-8"))["about"])


def load_preset(name: str) -> Settings:
    """Read the settings of a preset. Raises UsageError for an unknown name."""
    if name not in preset_names():
        raise UsageError(f"unknown preset {name!r}", suggest_name(name, preset_names()))
    return from_file(bundled_folder("configs") / f"{name}.toml")


def bundled_corpus() -> Path:
    """Return the path of the corpus that `charlstm train` uses by default."""
    return bundled_folder("corpora") / DEFAULT_CORPUS
