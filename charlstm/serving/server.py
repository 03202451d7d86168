"""The socket and the connections of the server."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from itertools import chain
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from charlstm.errors import CharlstmError, UsageError
from charlstm.serving.application import Service, build_application
from charlstm.serving.filling import FillingThread
from charlstm.serving.guard import LOCAL_NAMES
from charlstm.serving.models import ServedModel
from charlstm.serving.thread import BatchThread

MAX_CONNECTIONS = 256
"""Connections at a time. Further ones get the status 503."""

MAX_HEADERS = 16 * 1024
"""Bytes of the headers of a request."""

PATIENCE = 15.0
"""Seconds between two looks at a connection: it is closed if it has not moved since the last one."""

GRACE = 1
"""Seconds in which responses may end after Ctrl-C."""


class PatientProtocol(H11Protocol):
    """Closes connections whose clients are silent: they send no whole request, or read nothing of a response.

    The body of a request has a time limit of its own, in `charlstm.serving.guard`.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does this only for sockets that name the protocol, which those of socket.create_server do not
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.last_look: tuple[object, int] = (None, -1)
        self.look_timer = self.loop.call_later(PATIENCE, self.close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        self.look_timer.cancel()
        super().connection_lost(exc)

    def close_if_silent(self) -> None:
        """Close the connection if it waits for the client and nothing has happened since the last look.

        It waits for the client also if the body of a request that has its answer does not end.
        """
        unread = self.transport.get_write_buffer_size()
        awaits_client = self.cycle is None or self.cycle.response_complete
        now = (self.cycle, unread)
        if (unread or awaits_client or self.transport.is_closing()) and now == self.last_look:
            self.transport.abort()
            return
        self.last_look = now
        self.look_timer = self.loop.call_later(PATIENCE, self.close_if_silent)


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is any free one. Raises CharlstmError if the address is in use or unknown."""
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise UsageError(f"--host {host} is not an address of this machine: {error.strerror}") from error
    try:
        return socket.create_server(address[:2], family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise explain_listen_error(host, port, error.errno or 0) from error


def explain_listen_error(host: str, port: int, code: int) -> CharlstmError:
    """Return the error for an address on which this process cannot listen, for the reason of an `errno`."""
    reason = os.strerror(code)
    if code == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {host} is not an address of this machine: {reason}", "0.0.0.0 is all of them")
    hints = {
        errno.EADDRINUSE: "choose another --port; 0 takes a free one",
        errno.EACCES: "ports below 1024 may need more rights; choose a higher --port",
    }
    return CharlstmError(f"cannot listen on {host} port {port}: {reason}", hints.get(code, ""))


def is_local(host: str) -> bool:
    """Return whether only programs on this machine reach a server on this host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def format_url(host: str, listening: socket.socket) -> str:
    """Return the URL of a server. One that listens on all addresses has that of this machine."""
    port = listening.getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def serve_forever(listening: socket.socket, host: str, models: Mapping[str, ServedModel], key: str | None) -> None:
    """Answer requests until a signal arrives, which is then raised again."""
    filling = FillingThread()
    try:
        with BatchThread(list(chain.from_iterable(model.batches for model in models.values()))) as stepping:
            names = LOCAL_NAMES | {host} if is_local(host) else None
            application = build_application(Service(models, stepping, filling), names, key)
            uvicorn.Server(make_server_config(application)).run(sockets=[listening])
    finally:
        filling.close()


def make_server_config(application: Any) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEADERS,
        timeout_graceful_shutdown=GRACE,
    )
