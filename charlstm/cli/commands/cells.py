"""`charlstm cells`: the recurrent cells there are."""

from __future__ import annotations

import json
from dataclasses import replace
from inspect import cleandoc
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlstm.config import CELL_NAMES
from charlstm.console import Console
from charlstm.errors import UsageError
from charlstm.settings import Settings, from_environment, resolve, suggest_name

if TYPE_CHECKING:
    from charlstm.config import Config


def cells(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Cells. (default: all)",
            metavar="[CELL ...]",
            show_default=False,
            autocompletion=lambda: list(CELL_NAMES),
        ),
    ] = None,
    *,
    console: Console,
    settings: Settings,
    as_json: Annotated[bool, typer.Option("--json", help="Write a JSON object for each.")] = False,
) -> None:
    """List the recurrent cells: their equations, where they come from, and their size."""
    for name in names or ():
        if name not in CELL_NAMES:
            raise UsageError(f"there is no cell {name!r}", suggest_name(name, list(CELL_NAMES)))
    config = resolve(from_environment(console.environ, "model") | settings)
    console.note("x: what the input contributes, W_ih x_t + b_ih; act: tanh or softsign; *: element by element", "dim")
    for name in names or CELL_NAMES:
        about = describe(name, config)
        console.write((json.dumps(about, ensure_ascii=False) if as_json else shown(about, config)).encode() + b"\n")


def describe(name: str, config: Config) -> dict[str, Any]:
    """What is to be said of a cell; its equations are those of its docstring."""
    from charlstm.architecture import count_parameters
    from charlstm.cells import CELLS

    layers = count_parameters(replace(config.model, cell=name), 0)  # no symbols: no embedding and no head
    title, _, rest = cleandoc(CELLS[name].step.__doc__ or "").partition("\n\n")
    return {"cell": name, "about": title, "equations": rest.splitlines(), "parameters": layers}


def shown(about: dict[str, Any], config: Config) -> str:
    model = config.model
    size = f"{about['parameters']:,} parameters in {model.layers} x {model.hidden}, embedding {model.embedding}"
    lines = [f"{about['cell']}: {about['about']}", *about["equations"], f"({size})"]
    return "\n    ".join(lines).replace("\n    \n", "\n\n") + "\n"
