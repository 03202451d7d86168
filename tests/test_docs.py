"""README and docs: every block runs as typed, every link resolves, lines are short enough to read in a terminal."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from charlstm import presets
from tests.support.texts import ENGLISH, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", ROOT / "corpora" / "README.md"]

BLOCK = re.compile(r"(<!-- not runnable: [^>]+ -->\n\s*)?^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
MAX_NOT_RUNNABLE = 6
MAX_COLUMNS = 120
WITHOUT_RUNS = ("README.md", "sampling.md")
"""Pages whose shell blocks need no run: they train one, or use the model that ships."""

MAX_README_WORDS = 800


def name_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


def find_blocks(page: Path, language: str) -> list[str]:
    """Return the runnable blocks of a page in a language, in order."""
    found = BLOCK.findall(page.read_text("utf-8"))
    return [code for marker, written, code in found if written == language and not marker]


@pytest.fixture
def shell(run: Path, tmp_path: Path) -> dict[str, str]:
    """A folder that holds `letters.txt` and the run `runs/letters`, and an environment that finds the command."""
    shutil.copytree(run, tmp_path / "runs" / "letters")
    (tmp_path / "letters.txt").write_text(ENGLISH[:2500], "utf-8")
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "tests" / "support" / "trackers"),  # stand-ins for wandb, trackio and mlflow
    }


SHELL_PAGES = [
    pytest.param(page, marks=() if page.name == "README.md" else pytest.mark.long, id=name_page(page))
    for page in PAGES
    if page.name != "CONTRIBUTING.md"
]
"""The pages with shell blocks. Those of the documentation train many models, which takes minutes."""


@pytest.mark.slow
@pytest.mark.parametrize("page", SHELL_PAGES)
def test_every_shell_block_of_a_page_runs_as_typed(page: Path, shell: dict[str, str]) -> None:
    if page.name in WITHOUT_RUNS:
        shutil.rmtree("runs")  # a newcomer has none
    for block in find_blocks(page, "sh"):
        done = subprocess.run(["bash", "-ec", block], capture_output=True, env=shell, timeout=120, check=False)
        assert done.returncode == 0, f"{block}\n{done.stderr.decode()}"
        lines = done.stderr.decode().splitlines()
        failures = [line for line in lines if line.startswith(("charlstm: ", "Traceback"))]
        assert not failures, block  # also those in the middle of a pipeline, whose exit status is lost


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if find_blocks(page, "python")], ids=name_page)
def test_the_python_blocks_of_a_page_run_one_after_the_other(page: Path, shell: dict[str, str]) -> None:
    program = "\n".join(find_blocks(page, "python"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=shell, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_cells_that_are_stepped_by_hand_print_what_the_page_says() -> None:
    page = (ROOT / "docs" / "cells.md").read_text("utf-8").partition("## By hand\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(python|text)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    program, expected = ("".join(code for kind, code in blocks if kind == wanted) for wanted in ("python", "text"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == expected


def test_few_blocks_are_marked_as_not_runnable() -> None:
    marked = [page.name for page in PAGES for marker, *_ in BLOCK.findall(page.read_text("utf-8")) if marker]
    assert len(marked) <= MAX_NOT_RUNNABLE, marked


def test_the_readme_is_short_and_names_every_preset() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    prose = "\n".join(line for line in readme.splitlines() if not line.startswith("|"))
    assert len(prose.split()) <= MAX_README_WORDS
    assert all(f"`{name}`" in readme for name in presets.preset_names())


def slug(heading: str) -> str:
    """Return the anchor that Markdown renderers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", TEXTS, ids=name_page)
def test_every_link_of_a_page_resolves(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


@pytest.mark.parametrize("page", TEXTS, ids=name_page)
def test_the_prose_of_a_page_is_wrapped(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    long = [line for line in lines if len(line) > MAX_COLUMNS and not line.lstrip().startswith("|")]
    assert not [line for line in long if " " in line.strip()], "only links and table rows may be longer"


def test_troubleshooting_quotes_messages_that_exist() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "charlstm").rglob("*.py"))
    headings = re.findall(r"^### `([^`]+)`$", (ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    assert headings
    missing = [quoted for quoted in headings if quoted.replace("utf-8", "{self.encoding}") not in source]
    assert not missing
