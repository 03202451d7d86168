"""Groups of commands that import a command's module only when that command is typed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer.main
from typer.core import CompletionItem, TyperCommand, TyperGroup  # type: ignore[attr-defined]

from charlstm.cli.help import HELP_OPTIONS, OptionRow, format_page, make_option
from charlstm.errors import UsageError


class Entry(NamedTuple):
    """An entry in a table of commands, known before the module is imported."""

    target: str
    """The command object, as "module:name"."""
    panel: str
    """The heading under which help lists it."""
    summary: str
    """The first line of the command's docstring."""


class LazyGroup(TyperGroup):
    """A group whose help, completion and suggestions come from `entries` alone."""

    entries: ClassVar[Mapping[str, Entry]]
    renamed: ClassVar[Mapping[str, str]] = {}
    """Commands of earlier versions, and what to type instead."""
    options: ClassVar[Sequence[OptionRow]] = ()
    """Options of the group itself, besides help."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        placeholders = {name: TyperCommand(name, help=entry.summary) for name, entry in self.entries.items()}
        self.commands.update(placeholders)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.renamed:
            raise UsageError(f"the command {cmd_name!r} is now {self.renamed[cmd_name]!r}")
        if cmd_name not in self.entries:
            return None
        module, _, name = self.entries[cmd_name].target.partition(":")
        return getattr(import_module(module), name)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[CompletionItem]:
        commands = [
            CompletionItem(name, help=entry.summary)
            for name, entry in self.entries.items()
            if name.startswith(incomplete)
        ]
        return commands + super(TyperGroup, self).shell_complete(ctx, incomplete)

    def get_help(self, ctx: Any) -> str:
        return format_page(ctx, short=False)


def build_group(group: type[LazyGroup], name: str, help: str, *, completion: bool = False) -> LazyGroup:
    """Return a group of commands. Without a command it prints its short help page and exits with status 2.

    completion: with --install-completion and --show-completion.
    """
    app = typer.Typer(name=name, add_completion=completion, rich_markup_mode=None)

    def show_help(ctx: typer.Context, **_: bool) -> None:
        if ctx.invoked_subcommand is None:
            ctx.obj.write(format_page(ctx, short=True).encode())
            raise typer.Exit(2)

    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    options = [make_option(*option) for option in (*group.options, *HELP_OPTIONS)]
    show_help.__signature__ = inspect.Signature([context, *options])  # type: ignore[attr-defined]
    app.callback(cls=group, help=help, add_help_option=False, invoke_without_command=True)(show_help)
    built = typer.main.get_command(app)
    assert isinstance(built, LazyGroup)
    return built
