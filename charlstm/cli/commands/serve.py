"""`charlstm serve`: models over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from charlstm.cli.models import find_models
from charlstm.cli.options import SOURCE, command
from charlstm.config import SamplingConfig
from charlstm.console import Console
from charlstm.errors import MissingExtraError, UsageError
from charlstm.settings import Settings, build_section, from_environment
from charlstm.storage.locate import name_run

DEFAULT_PORT = 8080


@dataclass(frozen=True)
class ServeRequest:
    """Which models to serve, and where."""

    models: dict[str, Path]
    """Model files by name."""
    weights: str
    host: str
    port: int
    api_key: str | None


@command(
    "sampling.weights",
    short="models host port api_key",
    examples=("charlstm serve", "charlstm serve -m runs/english -m fr=runs/french --port 8081"),
)
def serve(
    *,
    console: Console,
    settings: Settings,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            help="Run folder, model file or builtin, named after its folder or as given. Repeatable. "
            "(default $CHARLSTM_MODEL, else the newest run under ./runs)",
            metavar="[NAME=]MODEL",
            click_type=SOURCE,
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own requires --api-key.", metavar="HOST")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 takes a free one.", metavar="N", min=0, max=65535)
    ] = DEFAULT_PORT,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Require this key from clients. (default: none)",
            metavar="KEY",
            envvar="CHARLSTM_API_KEY",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Serve models over HTTP, with OpenAI's completions API.

    Clients of OpenAI's API get texts from http://127.0.0.1:8080/v1, editors from /infill. Requests that arrive together
    are drawn in one batch, and a seed gives the text that charlstm sample writes with it. stdout has the URL. Needs
    pip install 'charlstm[serve]'.
    """
    sampling = build_section(SamplingConfig, from_environment(console.environ, "sampling") | settings, "sampling")
    if not host:
        raise UsageError("--host must not be empty", "is a shell variable in it unset?")
    if api_key is not None:
        check_api_key(api_key)
    found = find_models(models or [], console, lambda typed, path: name_run(path))
    try:
        from charlstm.cli.actions.serve import serve_models
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("charlstm"):
            raise
        raise MissingExtraError("serve needs Starlette and uvicorn", "serve", error) from None

    return serve_models(console, ServeRequest(found, sampling.weights, host, port, api_key))


def check_api_key(key: str) -> None:
    """Raise UsageError for a key that a header cannot carry."""
    if not key:
        raise UsageError("--api-key must not be empty", "is a shell variable in it unset?")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("--api-key must consist of letters, digits and signs of ASCII, without spaces")
