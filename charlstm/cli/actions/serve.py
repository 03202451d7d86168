"""Open the socket, load the models, and serve them until a signal arrives."""

from __future__ import annotations

import logging
import sys

from charlstm.cli.commands.serve import ServeRequest
from charlstm.console import Console, escape_controls
from charlstm.errors import UsageError
from charlstm.serving.models import ServedModel
from charlstm.serving.server import format_url, is_local, open_socket, serve_forever

INTERRUPTED = 130

SWITCH_INTERVAL = 0.001
"""Seconds after which the thread that steps the batch lets the one that serves requests run."""


def serve_models(console: Console, request: ServeRequest) -> int:
    """Serve the models. The first line on stdout is the URL."""
    if request.api_key is None and not is_local(request.host):
        raise UsageError(
            f"--host {request.host} lets other machines in, which requires --api-key", "choose one, or leave out --host"
        )
    models = {name: ServedModel(name, path, request.weights) for name, path in request.models.items()}
    with open_socket(request.host, request.port) as listening:
        for name, model in models.items():
            console.note(f"{escape_controls(name)}: {model.title}", "dim")
        url = format_url(request.host, listening)
        console.write(f"{url}\n".encode())
        console.flush()
        console.note(f"OpenAI clients take {url}/v1 as their base URL; Ctrl-C ends the server", "dim")
        sys.setswitchinterval(SWITCH_INTERVAL)
        if not console.debug:
            logging.disable()  # asyncio and uvicorn report clients that left
        serve_forever(listening, request.host, models, request.api_key)
    return INTERRUPTED  # a signal that this process ignores, as in the background of a script, ended the server
