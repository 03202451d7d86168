"""Help pages, the tables that they come from, and what is generated from them."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

import pytest

from charlstm.cli.app import RENAMED_OPTIONS, Program
from charlstm.cli.commands.show import Show
from charlstm.cli.lazy import LazyGroup
from charlstm.cli.options import DocumentedCommand
from charlstm.config import ALL_SECTIONS
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ROOT

MAX_SHORT_OPTIONS = 13
FULL_STOPS = (".", ")")


def commands() -> Iterator[tuple[list[str], DocumentedCommand]]:
    """Yield the words and the object of every command that is not a group."""
    for words, group in (([], Program), (["show"], Show)):
        for name, entry in group.entries.items():
            module, _, attribute = entry.target.partition(":")
            found = getattr(import_module(module), attribute)
            if not isinstance(found, LazyGroup):
                yield [*words, name], found


COMMANDS = {" ".join(words): command for words, command in commands()}
each_command = pytest.mark.parametrize("name", COMMANDS)


@pytest.mark.parametrize("group", [Program, Show])
def test_the_table_of_commands_has_the_first_line_of_each_docstring(group: type[LazyGroup]) -> None:
    for name, entry in group.entries.items():
        module, _, attribute = entry.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert inspect.cleandoc(command.help or "").splitlines()[0] == entry.summary, name


@each_command
def test_the_short_page_has_usage_a_dozen_options_and_two_examples(name: str) -> None:
    command = COMMANDS[name]
    assert 1 <= len(command.short) <= MAX_SHORT_OPTIONS
    assert set(command.short) <= {param.name for param in command.params}
    assert len(command.examples) == 2
    page = charlstm(*name.split(), "-h")
    assert (page.code, page.err) == (0, "")
    assert f"Usage: charlstm {name} [OPTIONS]" in page.text
    assert "Examples:" in page.text
    assert "--debug" not in page.text


@each_command
def test_the_full_page_has_every_option_with_a_sentence_and_its_default(name: str) -> None:
    page = charlstm(*name.split(), "--help", environ={}).text
    params: list[Any] = list(COMMANDS[name].params)
    for param in params:
        assert param.help and param.help.endswith(FULL_STOPS), param.name
        assert param.help[0].isupper(), param.name
        assert all(option in page for option in param.opts if option.startswith("-")), param.name
    for key in COMMANDS[name].settings:
        section, _, setting = key.partition(".")
        (field,) = (f for f in fields(ALL_SECTIONS[section]) if f.name == setting)
        if not isinstance(field.default, bool) and field.default != "":
            (own,) = (param for param in params if param.name == setting)
            assert "(default " in own.help, setting
    short = charlstm(*name.split(), "-h").text
    assert len(page) > len(short)


@each_command
def test_the_examples_of_a_command_parse(name: str) -> None:
    for example in COMMANDS[name].examples:
        (own,) = [part for part in re.split(r" [|<>] ", example) if part.startswith(f"charlstm {name}")]
        COMMANDS[name].make_context(name, shlex.split(own.removeprefix(f"charlstm {name}")))


@pytest.mark.parametrize("columns", [60, 80, 132])
@pytest.mark.parametrize("page", ["-h", "--help"])
def test_help_fits_the_width_of_the_terminal(columns: int, page: str) -> None:
    for name in ("", *COMMANDS):
        text = charlstm(*name.split(), page, environ={"COLUMNS": str(columns)}).text.partition("Examples:")[0]
        assert max(map(len, text.splitlines())) <= columns, name


def test_the_top_level_groups_the_commands() -> None:
    page = charlstm("--help").text
    assert re.findall(r"^(\w+):$", page, flags=re.MULTILINE)[:4] == ["Train", "Write", "Measure", "Manage"]


def test_a_group_without_a_command_prints_its_short_page_and_exits_with_2() -> None:
    for group in ((), ("show",)):
        alone = charlstm(*group)
        assert (alone.code, alone.text) == (2, charlstm(*group, "-h").text)
    assert "charlstm show COMMAND -h" in charlstm("show").text


def test_completion_lists_the_commands_without_importing_them() -> None:
    code = (
        "import sys, typer; from charlstm.cli.app import build_program; program = build_program(); "
        "found = program.shell_complete(typer.Context(program, info_name='charlstm'), 's'); "
        "print([(item.value, item.help) for item in found]); "
        "print([name for name in sys.modules if name.startswith('charlstm.cli.commands')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, imported = done.stdout.splitlines()
    assert listed == str([(n, Program.entries[n].summary) for n in ("sample", "serve", "score", "show")])
    assert imported == "[]"


def test_a_misspelled_command_or_option_gets_a_suggestion() -> None:
    assert_fails(charlstm("smaple"), 2, "'smaple'", "'sample'")
    assert_fails(charlstm("train", "--hiden", 3), 2, "--hiden", "--hidden")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("train", "--optimiser"),
        ("train", "--unit"),
        ("train", "--tie"),
        ("sample", "--jsonl"),
        ("fill", "--jsonl"),
        ("eval", "--per-char"),
        ("eval", "--suspicious"),
    ],
)
def test_an_option_of_an_earlier_version_names_its_successor(command: str, option: str) -> None:
    assert_fails(charlstm(command, option), 2, option, RENAMED_OPTIONS[option])


@pytest.fixture
def generator() -> ModuleType:
    """The script docs/generate.py as a module."""
    spec = spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module  # type: ignore[no-any-return]


def test_the_command_reference_is_what_make_docs_writes(generator: ModuleType) -> None:
    assert (ROOT / "docs" / "commands.md").read_text("utf-8") == generator.command_reference()


def test_the_readmes_table_of_presets_is_what_make_docs_writes(generator: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme == generator.with_preset_table(readme)
