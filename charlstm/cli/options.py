"""Options made from the settings' dataclasses, so that each is described once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import typer.main
from typer.core import TyperCommand
from typer.models import TyperPath

from charlstm import presets
from charlstm.cli.escapes import advise_on_escapes
from charlstm.cli.help import COMMON, HELP_OPTIONS, OptionRow, format_page, make_option
from charlstm.config import ALL_SECTIONS, SECTIONS, UnknownPolicy
from charlstm.console import Console
from charlstm.errors import UsageError
from charlstm.settings import Setting, Settings, from_assignments, from_environment, from_file, from_toml


class PathType(TyperPath):
    """The type of a parameter that is a path. An empty one is an error: to pathlib it is the current folder."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "":
            self.fail("a path must not be empty; is a shell variable in it unset?", param, ctx)
        return super().convert(value, param, ctx)


PATH, SOURCE = PathType(path_type=Path), PathType(path_type=str, readable=False)
"""A path, and one that can also be - for stdin or have a name before it."""

ModelOption = Annotated[
    Path | None,
    typer.Option(
        "-m",
        "--model",
        help="Run folder, model file, or builtin: the model that ships with charlstm. "
        "(default $CHARLSTM_MODEL, else the newest run under ./runs)",
        metavar="MODEL",
        click_type=PATH,
        show_default=False,
    ),
]

AverageOption = Annotated[
    Path | None,
    typer.Option(
        help="Average the model with this one, which has the same vocabulary: the mean of their distributions.",
        metavar="MODEL",
        click_type=PATH,
        show_default=False,
    ),
]

CorpusArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Files, folders (their *.txt) or - for stdin. (default: the English text that ships with charlstm)",
        metavar="[CORPUS ...]",
        click_type=SOURCE,
        show_default=False,
    ),
]

PresetOption = Annotated[
    str | None,
    typer.Option(
        help=f"Use the settings of a preset: {', '.join(presets.preset_names())}.",
        metavar="NAME",
        autocompletion=presets.preset_names,
    ),
]

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="Read settings from a TOML file such as a run's config.toml; - is stdin.", metavar="FILE", click_type=PATH
    ),
]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set any setting, as training.warmup=0.1; train --dry-run prints all of them. Repeatable.",
        metavar="SECTION.KEY=VALUE",
    ),
]

EncodingOption = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="Encoding of the files. (default: that of the model's corpus)",
        metavar="NAME",
        show_default=False,
    ),
]

ErrorsOption = Annotated[
    Literal["strict", "replace"] | None,
    typer.Option(
        "--errors",
        help="What to do with bytes that are not text. (default: as for the model's corpus)",
        show_default=False,
    ),
]

UnknownOption = Annotated[
    UnknownPolicy,
    typer.Option(help="What to do with a character that the model does not know: report an error, skip or replace it."),
]

SampleSeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="Seed of the random draws; the same seed gives the same output. (default: random, shown on stderr)",
        metavar="N",
        min=0,
        envvar="CHARLSTM_SEED",
        show_default=False,
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON object.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="Write one JSON object per line.")]

COMMON_OPTIONS: Sequence[OptionRow] = (
    (
        "quiet",
        bool,
        False,
        typer.Option("-q", "--quiet", help="Print only errors on stderr.", rich_help_panel=COMMON),
    ),
    (
        "color",
        Literal["auto", "always", "never"],
        "auto",
        typer.Option(
            "--color", help="Use color if stdout or stderr is a terminal, always, or never.", rich_help_panel=COMMON
        ),
    ),
    ("debug", bool, False, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=COMMON)),
    *HELP_OPTIONS,
)


class DocumentedCommand(TyperCommand):
    """A command whose help says which options are on the short page, and has examples."""

    short: Sequence[str] = ()
    """Names of parameters, as the function has them."""
    examples: Sequence[str] = ()
    settings: Sequence[str] = ()
    """Those of its options that are settings, as "model.hidden"."""

    def get_help(self, ctx: Any) -> str:
        return format_page(ctx, short=False)


def command(
    *wanted: str, short: str = "", examples: Sequence[str] = (), name: str = ""
) -> Callable[[Callable[..., int | None]], DocumentedCommand]:
    """Make a command of a function; its options are its own parameters, those of these settings and the common ones.

    The function is called with `console`, with `settings` (those given on the command line) and its own arguments.

    wanted: sections, for all their flags, or single settings as "model.hidden".
    short: names of the parameters on the short help page; all others are only on the full one.
    examples: command lines for the help page.
    """

    def build(function: Callable[..., int | None]) -> DocumentedCommand:
        flags = {
            key: f
            for section in dict.fromkeys(name.partition(".")[0] for name in wanted)
            for f in fields(ALL_SECTIONS[section])
            if f.metadata["flag"] and {section, key := f"{section}.{f.name}"} & set(wanted)
        }

        def run(ctx: typer.Context, **values: Any) -> int | None:
            console: Console = ctx.obj
            configure(console, values)
            given = {key: values.pop(f.name) for key, f in flags.items()}
            settings = {
                key: Setting(value, f"--{with_dashes(flags[key].name)}")
                for key, value in given.items()
                if value is not None
            }
            for key, setting in settings.items():
                if flags[key].metadata["metavar"] == TEXT:
                    advise_on_escapes(console, setting.where, setting.value)
            return function(console=console, settings=settings, **values)

        own = [
            p
            for p in inspect.signature(function, eval_str=True).parameters.values()
            if p.name not in ("console", "settings")
        ]
        made = [make_setting_option(key, f) for key, f in flags.items()]
        common = [make_option(*each) for each in COMMON_OPTIONS]
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        run.__signature__ = inspect.Signature([context, *own, *made, *common])  # type: ignore[attr-defined]
        run.__doc__ = function.__doc__
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(name or function.__name__, cls=DocumentedCommand, add_help_option=False)(run)
        built = typer.main.get_command(app)
        assert isinstance(built, DocumentedCommand)
        built.short, built.examples, built.settings = short.split(), examples, list(flags)
        return built

    return build


def merge_settings(
    console: Console, preset: Settings, config: Path | None, assignments: list[str] | None, flags: Settings
) -> Settings:
    """Return the settings given anywhere: flags override the environment, then the config file, then the preset."""
    check_record_flags(flags)
    environment = from_environment(console.environ, *SECTIONS)
    return preset | read_config_file(console, config) | environment | from_assignments(assignments or []) | flags


def check_record_flags(flags: Settings) -> None:
    """Raise UsageError for an empty --column or --field, or one with --document."""
    for record in (flags[key] for key in ("data.column", "data.field") if key in flags):
        if not record.value:
            raise UsageError(f"{record.where} must not be empty")
        if "data.document" in flags:
            raise UsageError(f"{record.where} makes each record a document and cannot be combined with --document")


def read_config_file(console: Console, config: Path | None) -> Settings:
    if config is None:
        return {}
    if str(config) != "-":
        return from_file(config)
    if not console.piped or console.stdin is None:
        raise UsageError("--config - reads stdin, and nothing was piped in")
    return from_toml(console.stdin.read(), "stdin")


def configure(console: Console, values: dict[str, Any]) -> None:
    """Take the common options out of the values."""
    common = {name: values.pop(name) for name, *_ in COMMON_OPTIONS}
    console.quiet, console.color = common["quiet"], common["color"]
    console.debug = console.debug or common["debug"]  # it may also be given before the command


TEXT = "TEXT"
METAVARS = {int: "N", float: "X", str: TEXT}
"""Placeholders for the values of settings that declare none."""


def make_setting_option(key: str, f: Field[Any]) -> inspect.Parameter:
    """Return the parameter of a function that typer makes the option of a setting."""
    panel = key.partition(".")[0].capitalize()
    if isinstance(f.default, bool):
        info = typer.Option(
            f"--{with_dashes(f.name)}", help=f.metadata["help"], show_default=False, rich_help_panel=panel
        )
        return make_option(f.name, bool | None, None, info)
    short = [f.metadata["flag"]] if isinstance(f.metadata["flag"], str) else []
    choices = f.metadata["choices"]
    info = typer.Option(
        f"--{with_dashes(f.name)}",
        *short,
        help=f"{f.metadata['help']}{format_default(f)}",
        metavar="|".join(choices) or f.metadata["metavar"] or METAVARS[type(f.default)],
        show_default=False,
        rich_help_panel=panel,
        autocompletion=(lambda: list(choices)) if choices else None,
    )
    return make_option(f.name, str | None, None, info)  # text: `settings.check_section` parses it, as in a file


def format_default(f: Field[Any]) -> str:
    if f.default == "":
        return ""
    default = f.default if isinstance(f.default, tuple) else (f.default,)
    return f" (default {','.join(f'{value:g}' if isinstance(value, float) else str(value) for value in default)})"


def with_dashes(name: str) -> str:
    return name.replace("_", "-")
