"""Options made from the settings' dataclasses, so that each is described once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from charlstm import presets
from charlstm.config import ALL_SECTIONS
from charlstm.console import Console
from charlstm.settings import Setting

ModelOption = Annotated[
    Path | None,
    typer.Option(
        "-m",
        "--model",
        help="A run's folder or a model file. (default $CHARLSTM_MODEL, else the newest run under ./runs)",
        show_default=False,
    ),
]

CorpusArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Files, folders (their *.txt) or - for stdin. (default: the English text that ships with charlstm)",
        metavar="[CORPUS ...]",
        show_default=False,
    ),
]

PresetOption = Annotated[
    str | None,
    typer.Option(
        help=f"Settings that ship with charlstm: {', '.join(presets.preset_names())}.",
        autocompletion=presets.preset_names,
    ),
]

ConfigOption = Annotated[Path | None, typer.Option(help="Settings from a TOML file, as a run's config.toml.")]

SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting. Repeatable.", metavar="SECTION.KEY=VALUE")
]

TieOption = Annotated[
    bool,
    typer.Option(
        "--tie",
        help="Predict by way of the embedding's own rows, as --set model.head=tied: far fewer weights in a large "
        "vocabulary.",
        rich_help_panel="Model",
    ),
]

COMMON = [
    (
        "quiet",
        bool,
        False,
        typer.Option("-q", "--quiet", help="Nothing on stderr but errors.", rich_help_panel="Common"),
    ),
    (
        "color",
        Literal["auto", "always", "never"],
        "auto",
        typer.Option("--color", help="Colours.", rich_help_panel="Common"),
    ),
    ("debug", bool, False, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Common")),
]


def command(app: typer.Typer, *wanted: str) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Registers a function as a subcommand whose options are its own, those of these settings and the common ones.

    `wanted` are sections, for all their flags, or single settings as "model.hidden". The function is called with
    `console`, with `settings` (what was given on the command line) and its own arguments.
    """

    def register(function: Callable[..., int | None]) -> Callable[..., int | None]:
        flags = {
            key: f
            for section in dict.fromkeys(name.partition(".")[0] for name in wanted)
            for f in fields(ALL_SECTIONS[section])
            if f.metadata["flag"] and {section, key := name_of(section, f)} & set(wanted)
        }

        def run(ctx: typer.Context, **values: Any) -> int | None:
            console: Console = ctx.obj
            configure(console, values)
            given = {key: values.pop(f.name) for key, f in flags.items()}
            settings = {
                key: Setting(value, f"--{dashed(flags[key].name)}") for key, value in given.items() if value is not None
            }
            return function(console=console, settings=settings, **values)

        own = [
            p
            for p in inspect.signature(function, eval_str=True).parameters.values()
            if p.name not in ("console", "settings")
        ]
        made = [parameter(f.name, kind_of(f), None, option(f, section_panel(key))) for key, f in flags.items()]
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        run.__signature__ = inspect.Signature([context, *own, *made, *(parameter(*c) for c in COMMON)])  # type: ignore[attr-defined]
        run.__doc__ = function.__doc__
        app.command(function.__name__.rstrip("_"))(run)
        return function

    return register


def configure(console: Console, values: dict[str, Any]) -> None:
    console.quiet, console.color, console.debug = (values.pop(name) for name in ("quiet", "color", "debug"))


def parameter(name: str, kind: Any, default: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def kind_of(f: Field[Any]) -> Any:
    """What typer makes of an option: a switch, or text that `settings.check` parses as it does a file's."""
    return bool | None if isinstance(f.default, bool) else str | None


def option(f: Field[Any], panel: str) -> Any:
    """The typer option of a setting."""
    if isinstance(f.default, bool):
        return typer.Option(f"--{dashed(f.name)}", help=f.metadata["help"], show_default=False, rich_help_panel=panel)
    short = [f.metadata["flag"]] if isinstance(f.metadata["flag"], str) else []
    choices = f.metadata["choices"]
    return typer.Option(
        f"--{dashed(f.name)}",
        *short,
        help=f"{f.metadata['help']}{default_of(f)}",
        metavar="|".join(choices) or f.metadata["metavar"] or type(f.default).__name__.upper(),
        show_default=False,
        rich_help_panel=panel,
        autocompletion=(lambda: list(choices)) if choices else None,
    )


def default_of(f: Field[Any]) -> str:
    return "" if f.default == "" else f" (default {shown(f.default)})"


def shown(default: Any) -> str:
    return (
        ",".join(map(str, default))
        if isinstance(default, tuple)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


def name_of(section: str, f: Field[Any]) -> str:
    return f"{section}.{f.name}"


def section_panel(key: str) -> str:
    return key.partition(".")[0].capitalize()


def dashed(name: str) -> str:
    return name.replace("_", "-")
