"""`charlstm cache`: what is kept of large corpora."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from charlstm.console import Console, escape_controls
from charlstm.settings import Settings


def cache(
    *,
    console: Console,
    settings: Settings,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove all of it; it is made again when it is needed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Show the cache folder, where the ids of large corpora are kept, and its size."""
    from charlstm.storage.cache import cache_folder, list_cache
    from charlstm.storage.cache import clear_cache as remove

    if clear:
        console.note(f"removed {remove():,} bytes")
    found = list_cache()
    figures: dict[str, Any] = {"folder": str(cache_folder()), "files": len(found), "bytes": sum(found.values())}
    if as_json:
        console.write(json.dumps(figures).encode() + b"\n")
    else:
        console.table({name: f"{v:,}" if isinstance(v, int) else escape_controls(v) for name, v in figures.items()})
