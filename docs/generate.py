"""Write docs/commands.md from the help pages, and the table of presets in README.md.

python docs/generate.py
"""

from __future__ import annotations

import io
from pathlib import Path

from charlstm import presets
from charlstm.cli.app import Program, main
from charlstm.cli.commands.show import Show
from charlstm.console import Console

ROOT = Path(__file__).parent.parent
COMMANDS, README = ROOT / "docs" / "commands.md", ROOT / "README.md"
MARKERS = "<!-- presets -->\n", "<!-- /presets -->"

WIDTH = 100
"""Columns of the help pages."""

INTRODUCTION = """\
# Commands

This page is generated from `--help` by `make docs`. `charlstm COMMAND -h` shows a shorter page.
"""


def command_reference() -> str:
    """Return the text of docs/commands.md."""
    pages = [[], *([name] for name in Program.entries), *(["show", name] for name in Show.entries)]
    return "\n".join([INTRODUCTION, *map(format_section, pages)])


def format_section(command: list[str]) -> str:
    title = " ".join(["charlstm", *command])
    return f"## {title}\n\n```text\n{help_page(command)}```\n"


def help_page(command: list[str]) -> str:
    """Return what a command prints with --help, WIDTH columns wide."""
    stdout = io.BytesIO()
    status = main([*command, "--help"], Console(None, stdout, io.StringIO(), {"COLUMNS": str(WIDTH)}))
    assert status == 0
    return stdout.getvalue().decode()


def preset_table() -> str:
    """Return the table of presets in Markdown."""
    rows = [f"| `{name}` | {presets.describe_preset(name)} |" for name in presets.preset_names()]
    return "\n".join(["| Preset | Use |", "| --- | --- |", *rows]) + "\n"


def with_preset_table(readme: str) -> str:
    """Return the README with the current table between its markers."""
    before, opening, rest = readme.partition(MARKERS[0])
    _, closing, after = rest.partition(MARKERS[1])
    assert opening and closing, f"README.md has no {' and '.join(MARKERS)}"
    return f"{before}{opening}{preset_table()}{closing}{after}"


if __name__ == "__main__":
    COMMANDS.write_text(command_reference(), "utf-8")
    README.write_text(with_preset_table(README.read_text("utf-8")), "utf-8")
