"""What every request must pass, and the headers of every response."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode
from hmac import compare_digest
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charlstm.serving.errors import ApiError

MAX_BODY = 2**20
"""Bytes of a request."""

BODY_WAIT = 30.0
"""Seconds in which the body of a request must arrive."""

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine in the Host header."""

HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]*)?")
"""A Host header: a name or an address, and a port."""

PUBLIC_PATHS = ("/health",)
"""Answered without the API key, as by llama-server."""

CLOSING = {"connection": "close"}
"""Headers of a response to a request whose rest is not read."""

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Sent with every response that does not set them itself."""


class Guard:
    """Checks the Host and Origin headers and the API key before the application sees a request.

    names: the names of the server that the Host header may have; None for any, on other hosts than this one.
    key: the API key; None if none is required.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str] | None, key: str | None) -> None:
        self.app, self.names, self.key = app, names, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                add_headers(message)
            await send(message)

        try:
            self.check(Request(scope))
            await self.app(scope, receive, send_with_headers)
        except ApiError as error:
            await error.to_response()(scope, receive, send_with_headers)
        except Exception as error:  # here, because Starlette's handler of it sends past the middleware
            if not has_started:
                failure = ApiError(f"internal error: {type(error).__name__}: {error}", status=500)
                await failure.to_response()(scope, receive, send_with_headers)
            raise  # uvicorn logs it and closes the connection

    def check(self, request: Request) -> None:
        """Raise ApiError for a request that a page of another site may have made, or one without the API key."""
        host = request.headers.get("host", "")
        name = parse_host(host)
        if (host and not name) or (self.names is not None and name not in self.names):
            raise ApiError(f"this server has no name {host!r}; use http://127.0.0.1", status=403, headers=CLOSING)
        origin = request.headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise ApiError(f"requests by pages of {origin} are not allowed", status=403, headers=CLOSING)
        if self.key is not None and request.scope["path"] not in PUBLIC_PATHS and not has_key(request, self.key):
            raise ApiError(
                "the API key is missing or wrong: send it as Authorization: Bearer KEY",
                status=401,
                code="invalid_api_key",
                headers={**CLOSING, "www-authenticate": 'Basic realm="charlstm", charset="UTF-8"'},
            )


def add_headers(message: Message) -> None:
    """Add the security headers that the start of a response does not set itself."""
    present = {name for name, _ in message["headers"]}
    added = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
    message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in present)]


def parse_host(host: str) -> str:
    """Return the name of a Host header, without the port and in lower case; "" if it is malformed."""
    match = HOST.fullmatch(host)
    return (match[1] or match[2]).lower() if match else ""


def has_key(request: Request, key: str) -> bool:
    """Return whether the API key is there: as a bearer token or, from browsers, as the password of any user."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            value = b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # not ASCII, not Base64 or not UTF-8
            return False
    elif scheme.lower() != "bearer":
        return False
    return compare_digest(value.strip().encode(), key.encode())


async def read_object(request: Request) -> dict[str, Any]:
    """Read a body that is a JSON object. Raises ApiError if it is something else, too long or too slow."""
    try:
        async with asyncio.timeout(BODY_WAIT):
            body = await read_body(request)
    except TimeoutError:
        raise ApiError("the body of the request did not arrive in time", status=408, headers=CLOSING) from None
    except ClientDisconnect:
        raise ApiError("the client has gone", status=499, headers=CLOSING) from None
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError("the body is not JSON") from None
    if not isinstance(values, dict):
        raise ApiError("the body is not a JSON object")
    return values


async def read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ApiError(f"the body has more than {MAX_BODY:,} bytes", status=413, headers=CLOSING)
    return bytes(body)
