"""What every request must pass, and the headers of every response."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from binascii import Error as Base64Error
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charlstm.serving.errors import ApiError

MAX_BODY = 2**20
"""Bytes of a request."""

BODY_WAIT = 30.0
"""Seconds in which the body of a request must arrive."""

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine in the Host header."""

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

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in present)]
            await send(message)

        try:
            self.check(Request(scope))
        except ApiError as error:
            await error.to_response()(scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)

    def check(self, request: Request) -> None:
        """Raise ApiError for a request that a page of another site may have made, or one without the API key."""
        host = request.headers.get("host", "")
        if self.names is not None and parse_host(host) not in self.names:
            raise ApiError(f"this server has no name {host!r}; use http://127.0.0.1", status=403, headers=CLOSING)
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise ApiError(f"requests by pages of {origin} are not allowed", status=403, headers=CLOSING)
        if self.key is not None and request.url.path not in PUBLIC_PATHS and not has_key(request, self.key):
            raise ApiError(
                "the API key is missing or wrong: send it as Authorization: Bearer KEY",
                status=401,
                code="invalid_api_key",
                headers={**CLOSING, "www-authenticate": 'Basic realm="charlstm", charset="UTF-8"'},
            )


def parse_host(host: str) -> str:
    """Return the name of a Host header, without the port and in lower case; "" if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def has_key(request: Request, key: str) -> bool:
    """Return whether the API key is there: as a bearer token or, from browsers, as the password of any user."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            value = b64decode(value, validate=True).decode().partition(":")[2]
        except (Base64Error, UnicodeDecodeError):
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
