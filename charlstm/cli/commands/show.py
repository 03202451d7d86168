"""`charlstm show`: presets, recurrent cells and the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from inspect import cleandoc
from typing import Annotated, Any, ClassVar

import typer

from charlstm import presets as preset_files
from charlstm.cli.lazy import Entry, LazyGroup, build_group
from charlstm.cli.options import JsonLinesOption, JsonOption, command
from charlstm.cli.output import write_json
from charlstm.config import CELL_NAMES, Config
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.settings import Settings, from_environment, resolve, suggest_name


class Show(LazyGroup):
    """The `charlstm show` group."""

    entries: ClassVar[Mapping[str, Entry]] = {
        "presets": Entry(f"{__name__}:presets", "Commands", "List the presets, or print the settings of one."),
        "cells": Entry(f"{__name__}:cells", "Commands", "Describe the recurrent cells: equations, source and size."),
        "cache": Entry(f"{__name__}:cache", "Commands", "Show the cache folder and its size, or clear it."),
    }


show = build_group(Show, "show", "Show presets, recurrent cells or the cache.")


@command(short="name as_json", examples=("charlstm show presets", "charlstm show presets small > my.toml"))
def presets(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Print this preset's settings as TOML. (default: list all)",
            metavar="[NAME]",
            show_default=False,
            autocompletion=preset_files.preset_names,
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    as_json: JsonLinesOption = False,
) -> None:
    """List the presets, or print the settings of one."""
    if name is not None:
        values = preset_files.load_preset(name)
        if as_json:
            about = {"preset": name, "about": preset_files.describe_preset(name)}
            write_json(console, about | {"settings": {key: setting.value for key, setting in values.items()}})
        else:
            console.write((preset_files.bundled_folder("configs") / f"{name}.toml").read_bytes())
        return
    found = {each: preset_files.describe_preset(each) for each in preset_files.preset_names()}
    if as_json:
        for each, line in found.items():
            write_json(console, {"preset": each, "about": line})
    else:
        console.table(found)


@command(
    "model.layers",
    "model.hidden",
    short="names layers hidden as_json",
    examples=("charlstm show cells lstm gru", "charlstm show cells --hidden 512 --json"),
)
def cells(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Cells to describe. (default: all)",
            metavar="[CELL ...]",
            show_default=False,
            autocompletion=lambda: list(CELL_NAMES),
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    as_json: JsonLinesOption = False,
) -> None:
    """Describe the recurrent cells: equations, source and size."""
    for name in names or ():
        if name not in CELL_NAMES:
            raise UsageError(f"unknown cell {name!r}", suggest_name(name, list(CELL_NAMES)))
    config = resolve(from_environment(console.environ, "model") | settings)
    console.note("x = W_ih u_t + b_ih, u_t: the layer's input; act: tanh or softsign; *: element-wise product", "dim")
    for name in names or CELL_NAMES:
        about = describe_cell(name, config)
        if as_json:
            write_json(console, about)
        else:
            console.write(format_cell(about, config).encode() + b"\n")


def describe_cell(name: str, config: Config) -> dict[str, Any]:
    """Return a cell's name, source, equations (those of its docstring) and parameters in all layers."""
    from charlstm.architecture import count_parameters
    from charlstm.cells import CELLS

    layers = count_parameters(replace(config.model, cell=name), 0)  # no symbols: no embedding and no head
    title, _, rest = cleandoc(CELLS[name].step.__doc__ or "").partition("\n\n")
    return {"cell": name, "about": title, "equations": rest.splitlines(), "parameters": layers}


def format_cell(about: Mapping[str, Any], config: Config) -> str:
    model = config.model
    size = f"{about['parameters']:,} parameters in {model.layers} x {model.hidden}, embedding {model.embedding}"
    lines = [f"{about['cell']}: {about['about']}", *about["equations"], f"({size})"]
    return "\n    ".join(lines).replace("\n    \n", "\n\n") + "\n"


@command(short="clear as_json", examples=("charlstm show cache", "charlstm show cache --clear"))
def cache(
    *,
    console: Console,
    settings: Settings,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove its files; charlstm makes them again when it needs them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the cache folder and its size, or clear it."""
    from charlstm.storage.cache import cache_folder, clear_cache, list_cache

    if clear:
        console.note(f"removed {clear_cache():,} bytes")
    found = list_cache()
    about: dict[str, Any] = {"folder": str(cache_folder()), "files": len(found), "bytes": sum(found.values())}
    if as_json:
        write_json(console, about)
    else:
        console.table({name: f"{v:,}" if isinstance(v, int) else escape_controls(v) for name, v in about.items()})
