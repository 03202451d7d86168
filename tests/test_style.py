"""The language of the project: phrases that the style guide replaces, and one name for one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.texts import ROOT

PACKAGE = ROOT / "charlstm"
MODULES = sorted(PACKAGE.rglob("*.py"))
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
TEXTS += sorted((ROOT / "docs").glob("*.md"))

PHRASES = re.compile(
    r"""\b(
    (is|are|was|were|been)\ (told|said)(?!\ to) | \w+\ tells\b | (of\ )?so\ many | go(es)?\ on\ with | went\ on\ with
    | com(es|e|ing)\ to\ (?!an\ end|rest) | (it|they|that|this|which)\ stands?\ (in|on|at|there) | but\ for | all\ but
    | to\ be\ had | no\ (longer\ a\ )?number(\ any\ more)? | afresh | anew | beside | there\ is\ not
    | that\ there\ (is|are)\ not
    | by\ heart | learnt\ by | what\ can\ is | some(body|one)\ else's | somebody | nobody
    | well-kept | weighed | packed | refused | refuses | begun | gone\ by
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Phrases of the style guide's list that have no other use in this project."""

SHARED_NAMES = {
    "train": "the public function and the command",
    "serve": "the command, and the loop of a worker process",
    "evaluate": "the public function and what it calls",
}
"""Public names that are defined in two packages on purpose, and why."""


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a module, those of constants included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def help_texts() -> str:
    """Return every help text, error and message of the package: its string literals."""
    nodes = (node for path in MODULES for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return "\n".join(text for text in texts if " " in text)  # not the keys of files


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_has_no_phrase_of_the_old_dialect(path: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not [match[0] for match in PHRASES.finditer(prose)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_have_no_phrase_of_the_old_dialect(path: Path) -> None:
    assert not [match[0] for text in docstrings(path) for match in PHRASES.finditer(text)]


def test_messages_and_help_have_no_phrase_of_the_old_dialect() -> None:
    assert not [match[0] for match in PHRASES.finditer(help_texts())]


def public_names(path: Path) -> Iterator[str]:
    """Yield the functions, classes and constants that a module defines."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            targets = [e for t in node.targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_no_public_name_is_defined_in_two_packages() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        package = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for name in public_names(path):
            if not name.startswith("_"):
                homes[name].add(package)
    twice = {name: sorted(packages) for name, packages in homes.items() if len(packages) > 1}
    assert {name: where for name, where in twice.items() if name not in SHARED_NAMES} == {}
