"""Responses that end with their client: what they wait for is cancelled when it disconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from charlstm.serving.errors import ApiError
from charlstm.serving.work import wait_for_disconnect

EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]


class CancellingResponse(Response):
    """A response that takes a while. `cancel` is called at its end, and at once if the client disconnects."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        super().__init__()
        self.cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = asyncio.ensure_future(self.answer(scope, receive, send))
        gone = asyncio.ensure_future(wait_for_disconnect(receive))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
        finally:
            self.cancel()
            for task in (answer, gone):
                task.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        raise NotImplementedError


class DelayedJSON(CancellingResponse):
    """A JSON object that is computed first."""

    def __init__(self, content: Awaitable[Mapping[str, Any]], cancel: Callable[[], None]) -> None:
        super().__init__(cancel)
        self.awaited = content

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = JSONResponse(await self.awaited)
        except ApiError as error:
            response = error.to_response()
        await response(scope, receive, send)


class EventStream(CancellingResponse):
    """JSON objects as server-sent events, the last of which is [DONE]."""

    def __init__(self, events: AsyncIterator[Mapping[str, Any]], cancel: Callable[[], None]) -> None:
        super().__init__(cancel)
        self.events = events

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
        try:
            async for event in self.events:
                await send_event(send, json.dumps(event, ensure_ascii=False, separators=(",", ":")))
            await send_event(send, "[DONE]")
        except ApiError as error:  # the status has been sent
            await send_event(send, json.dumps(error.to_dict()))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_event(send: Send, data: str) -> None:
    await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})
