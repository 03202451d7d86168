"""The layers of the package, what is imported at start-up, and the public names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import charlstm
from charlstm.cli.app import Program
from tests.support.modules import loaded_modules_after

PACKAGE = Path(charlstm.__file__).parent

LAYERS = {
    "errors": 0,
    "matrices": 0,
    "wording": 0,
    "decoding": 1,
    "fields": 1,
    "config": 2,
    "cells": 2,
    "runtime": 2,
    "rendezvous": 2,
    "workers": 3,
    "console": 2,
    "pages": 3,
    "vocabulary": 2,
    "settings": 3,
    "architecture": 3,
    "presets": 4,
    "storage": 4,
    "data": 5,
    "model": 5,
    "sampling": 6,
    "evaluation": 6,
    "infilling": 7,
    "inspection": 7,
    "training": 7,
    "text_model": 8,
    "writing": 8,
    "api": 9,
    "llm_plugin": 9,
    "tracking": 8,
    "tuning": 8,
    "export": 8,
    "serving": 9,
    "cli": 10,
    "": 11,
    "__main__": 11,
}
"""The layer of each module or package, which imports from lower layers only."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def top_level(name: str) -> str:
    """Return "data" for "charlstm.data.corpus"."""
    return name.partition(".")[2].partition(".")[0]


def imported_modules(path: Path) -> set[str]:
    """Return the modules of charlstm that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "charlstm":
            names = [alias.name for alias in node.names] if node.module == "charlstm" else []
            found |= {f"charlstm.{name}" for name in names if name in LAYERS} or {node.module}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "charlstm"}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_lower_layers_only(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    own = parts[0] if parts[0] != "__init__" else ""
    for name in imported_modules(path):
        other = top_level(name)
        if other != own and other != "":
            assert LAYERS[other] < LAYERS[own], f"{path} imports {name}"


IMPORTS_MUCH = (
    "charlstm.evaluation.dynamic",
    "charlstm.evaluation.evaluate",
    "charlstm.evaluation.forward",
    "charlstm.evaluation.in_order",
    "charlstm.evaluation.resets",
    "charlstm.model",
    "charlstm.tracking.figure",  # matplotlib, an extra
    "charlstm.tracking.tensorboard",  # tensorboard, an extra
    "charlstm.training.auto_config",
    "charlstm.training.launch",
    "charlstm.training.lr_range_test",
    "charlstm.training.run",
    "charlstm.training.speed",
    "charlstm.training.trainer",
    "charlstm.tuning.search",
)


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").rglob("*.py")), ids=lambda path: path.stem)
def test_the_command_line_defers_only_imports_of_torch_and_of_what_a_command_does(path: Path) -> None:
    deferred = [
        node.module or ""
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom)
    ]
    allowed: tuple[str, ...] = ("charlstm.cli.actions",) if path.parent.name == "commands" else IMPORTS_MUCH
    if path.name == "sample.py" and path.parent.name == "actions":
        allowed += tuple(f"charlstm.cli.actions.{name}" for name in ("adapt", "clamp", "novelty"))  # they read texts
    if path.name == "export.py" and path.parent.name == "actions":
        allowed += ("charlstm.export.onnx_file",)  # onnx, an extra
    if path.stem == "show":
        allowed += ("charlstm.architecture", "charlstm.cells", "charlstm.storage.cache")  # NumPy, for one function each
    if path.stem == "app":
        allowed += ("charlstm.cli.actions.version",)  # `--version` alone appears at once
    if path.stem == "version":
        allowed += ("charlstm.storage.cache",)  # NumPy: a broken installation is reported
    assert [module for module in deferred if not module.startswith(allowed)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_modules_with_tensors_import_torch(path: Path) -> None:
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    assert "click" not in names, "typer carries its own"
    assert "pickle" not in names
    if "torch" in names and path.name != "pytorch_model.py":  # which is copied, never imported
        assert path.relative_to(PACKAGE).parts[0] in ("model", "training", "evaluation")


def test_help_imports_no_numpy_and_sample_no_torch(run: Path) -> None:
    start = "from charlstm.cli.app import main; import os, sys; out = os.dup(1); os.dup2(2, 1)"
    end = "sys.stdout.flush(); os.dup2(out, 1)"
    commands = [["--help"], ["-h"], *([name, "--help"] for name in Program.entries), ["show", "cells", "-h"]]
    helped = loaded_modules_after(f"{start}; [main(each) for each in {commands}]; {end}")
    assert "typer" in helped
    assert not {"torch", "numpy", "rich", "numba", "filelock"} & helped
    sampled = loaded_modules_after(f"{start}; assert main(['sample', '-m', {str(run)!r}, '-l', '5']) == 0; {end}")
    assert "numpy" in sampled
    assert not {"torch", "filelock"} & sampled


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not {"torch", "numpy", "typer", "rich"} & loaded_modules_after("import charlstm")


def test_every_public_name_is_importable_and_documented() -> None:
    for name in charlstm.__all__:
        assert getattr(charlstm, name).__doc__, name
