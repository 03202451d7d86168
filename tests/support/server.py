"""A server in this process, on a thread of its own, and requests to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import uvicorn

from charlstm.serving.application import Service, build_application
from charlstm.serving.filling import FillingThread
from charlstm.serving.guard import LOCAL_NAMES
from charlstm.serving.models import ServedModel
from charlstm.serving.server import make_server_config, open_socket
from charlstm.serving.thread import BatchThread


@dataclass
class Reply:
    """The status, headers and body of a response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The objects of an event stream, without the [DONE] at its end."""
        *events, done, rest = self.body.decode().split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]


@dataclass
class RunningServer:
    """A server that runs, and its batches and connections, which tests look at."""

    server: uvicorn.Server
    port: int
    models: Mapping[str, ServedModel]
    stepping: BatchThread

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request. A body that is not bytes is sent as JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, dict(headers or {}))
        response = connection.getresponse()
        reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return reply

    def complete(self, **fields: Any) -> Reply:
        return self.request("POST", "/v1/completions", fields)

    def count_connections(self) -> int:
        return len(self.server.server_state.connections)

    def count_rows(self) -> int:
        """Return how many rows of all batches are in use or waited for."""
        return sum(len(batch.slots) + len(batch.waiting) for batch in self.stepping.batches)


def wait_until(condition: Any, seconds: float = 30) -> None:
    """Wait until a condition holds. Fails if it does not within this time."""
    started = monotonic()
    while not condition():
        assert monotonic() - started < seconds, "it did not happen"
        sleep(0.005)


@contextmanager
def running_server(paths: Mapping[str, Path], key: str | None = None) -> Iterator[RunningServer]:
    """Serve models on a free port."""
    models = {name: ServedModel(name, path, "auto") for name, path in paths.items()}
    batches = [batch for model in models.values() for batch in model.batches]
    filling = FillingThread()
    with open_socket("127.0.0.1", 0) as listening, BatchThread(batches) as stepping:
        server = uvicorn.Server(
            make_server_config(build_application(Service(models, stepping, filling), LOCAL_NAMES, key))
        )
        thread = Thread(target=server.run, args=([listening],))
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield RunningServer(server, listening.getsockname()[1], models, stepping)
        finally:
            server.should_exit = True
            thread.join()
            filling.close()
