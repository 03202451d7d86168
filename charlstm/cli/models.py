"""Several models on one command line, each with a name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from charlstm.console import Console
from charlstm.errors import UsageError
from charlstm.storage.locate import find_model, name_model, parse_path


def name_as_typed(typed: str, path: Path) -> str:
    return typed


def find_models(
    named: list[str], console: Console, name: Callable[[str, Path], str] = name_as_typed
) -> dict[str, Path]:
    """Return the model files by name. Raises UsageError for two models of the same name.

    named: paths, each with or without NAME= before it. If there are none, it is the model that other commands read.
    name: returns the name of a model without one, from what was typed and from the path of the file.
    """
    if not named:
        path = find_model(None, console.environ)
        return {name(name_model(path), path): path}
    found: dict[str, Path] = {}
    for each in named:
        given, equals, model = each.partition("=")
        if not equals or Path(each).exists():
            given, model = "", each
        path = find_model(parse_path(model, f"-m {each}: the path"), console.environ)
        own = given or name(each, path)
        if own in found:
            raise UsageError(f"two models are named {own!r}", "give each a different name: -m NAME=MODEL")
        found[own] = path
    return found
