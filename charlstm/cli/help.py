"""Help pages: the short one of `-h`, the full one of `--help`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

WIDEST = 100
"""Columns of a page, even if the terminal has more."""

LEFT = 28
"""Columns for the names of options; longer names have a line of their own."""

STACKED = 60
"""On a page narrower than this every description is below the name."""

COMMON = "Common options"
SHORT_HELP = "Show the options used most, and examples."
FULL_HELP = "Show all options."


OptionRow = tuple[str, Any, Any, Any]
"""The name, type, default and description of an option that several commands have."""


def make_option(name: str, kind: Any, default: Any, info: Any) -> inspect.Parameter:
    """Return the parameter of a function that typer makes an option of."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def show_short_page(ctx: typer.Context, wanted: bool) -> None:
    show_page(ctx, wanted, short=True)


def show_full_page(ctx: typer.Context, wanted: bool) -> None:
    show_page(ctx, wanted, short=False)


def show_page(ctx: typer.Context, wanted: bool, *, short: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        ctx.obj.write(format_page(ctx, short=short).encode())
        raise typer.Exit


HELP_OPTIONS: Sequence[OptionRow] = (
    (
        "short_help",
        bool,
        False,
        typer.Option("-h", help=SHORT_HELP, callback=show_short_page, is_eager=True, rich_help_panel=COMMON),
    ),
    (
        "full_help",
        bool,
        False,
        typer.Option("--help", help=FULL_HELP, callback=show_full_page, is_eager=True, rich_help_panel=COMMON),
    ),
)


def format_page(ctx: Any, *, short: bool) -> str:
    """Return the help page of the context's command, wrapped to the width of the terminal."""
    width = min(ctx.obj.width(ctx.obj.stdout), WIDEST)
    command = ctx.command
    summary, _, rest = inspect.cleandoc(command.help or "").partition("\n\n")
    parts = [wrap(summary, width), wrap(format_usage(ctx), width, "    ")]
    if rest and not short:
        parts.append("\n\n".join(wrap(paragraph, width) for paragraph in rest.split("\n\n")))
    entries = getattr(command, "entries", None)
    if entries:
        parts += list(format_commands(entries, width))
    params = [param for param in command.params if not param.hidden]
    shown = [param for param in params if param.name in getattr(command, "short", ())] if short else params
    parts += list(format_options(shown, width, one_list=short))
    if not short and (settings := getattr(command, "settings", ())):
        parts.append(wrap(describe_environment(settings), width))
    if examples := getattr(command, "examples", ()):
        parts.append("\n".join(["Examples:", *(f"  {example}" for example in examples)]))
    if short:
        more = (
            f"{ctx.command_path} COMMAND -h shows the options of a command." if entries else "--help shows all options."
        )
        parts.append(wrap(more, width))
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_environment(settings: Sequence[str]) -> str:
    """Return how to give settings other than by options."""
    sections = list(dict.fromkeys(key.partition(".")[0].capitalize() for key in settings))
    panels = " and ".join(part for part in (", ".join(sections[:-1]), sections[-1]) if part)
    name = settings[0].partition(".")[2]
    variable, option = f"CHARLSTM_{name.upper()}", f"--{name.replace('_', '-')}"
    ends_with = ", --config file, --preset" if "Training" in sections else ""
    return (
        f"The options under {panels} can also be given as environment variables, as {variable} for {option}. "
        f"Precedence: option, variable{ends_with}, default."
    )


def format_usage(ctx: Any) -> str:
    """Return the usage line."""
    pieces = [param.make_metavar(ctx=ctx) for param in ctx.command.params if param.param_type_name == "argument"]
    rest = ["COMMAND ..."] if hasattr(ctx.command, "entries") else pieces
    return " ".join(["Usage:", ctx.command_path, "[OPTIONS]", *rest])


def format_commands(entries: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield a list of commands for each heading."""
    longest = max(map(len, entries))
    for panel in dict.fromkeys(entry.panel for entry in entries.values()):
        rows = [(f"{name:{longest}}", entry.summary) for name, entry in entries.items() if entry.panel == panel]
        yield format_list(panel, rows, width)


def format_options(params: Sequence[Any], width: int, *, one_list: bool) -> Iterator[str]:
    """Yield a list of options for each heading, arguments first, the common options last."""
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for param in params:
        is_argument = param.param_type_name == "argument"
        panel = "Arguments" if is_argument else "Options" if one_list else param.rich_help_panel or "Options"
        panels.setdefault(panel, []).append(describe_param(param))
    common = panels.pop(COMMON, [])
    for panel, rows in {**panels, COMMON: common}.items():
        if rows:
            yield format_list(panel, rows, width)


def describe_param(param: Any) -> tuple[str, str]:
    """Return the names and the description of an option or argument."""
    description, default = split_default(param)
    if param.param_type_name == "argument":
        return param.human_readable_name.strip("[]"), description + default
    names = ", ".join(sorted(param.opts, key=len))
    names = names if any(len(name) == 2 for name in param.opts) else f"    {names}"
    if param.is_flag:
        return names, description + default
    metavar = param.metavar or "|".join(getattr(param.type, "choices", ())) or param.type.name.upper()
    if "|" in metavar and len(names) + len(metavar) >= LEFT:  # a list of choices too long for its column
        description += f" One of: {metavar.replace('|', ', ')}."
        metavar = param.name.strip("_").upper()
    return f"{names} {metavar}", description + default


def split_default(param: Any) -> tuple[str, str]:
    """Return the help text of a parameter in two parts: what it does, and its default in parentheses."""
    what, parenthesis, default = (param.help or "").partition(" (default")
    if not default and param.show_default is True and param.default not in (None, False, "", []):
        return what, f" (default {param.default})"
    return what, parenthesis + default


def format_list(heading: str, rows: Sequence[tuple[str, str]], width: int) -> str:
    left = 6 if width < STACKED else min(max(len(name) for name, _ in rows) + 2, LEFT)
    lines = [f"{heading}:"]
    for name, description in rows:
        first, *others = textwrap.wrap(description, width - left - 2, break_on_hyphens=False) or [""]
        if len(name) + 2 > left:
            lines += [f"  {name}", f"  {'':{left}}{first}"]
        else:
            lines.append(f"  {name:{left}}{first}".rstrip())
        lines += [f"  {'':{left}}{line}" for line in others]
    return "\n".join(lines)


def wrap(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()), width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
