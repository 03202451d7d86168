"""The endpoints of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from charlstm.export.page import format_page_policy
from charlstm.serving.chat import ChatCompletion, parse_chat
from charlstm.serving.completions import Completion
from charlstm.serving.errors import ApiError
from charlstm.serving.filling import FillingThread
from charlstm.serving.guard import Guard, read_object
from charlstm.serving.infill import Infilling, InfillRequest
from charlstm.serving.models import ServedModel, choose_model
from charlstm.serving.page import format_home_policy, render_home, render_model_page
from charlstm.serving.parameters import CompletionRequest, Fields
from charlstm.serving.prompts import describe_tokenizer, detokenize, tokenize
from charlstm.serving.responses import DelayedJSON
from charlstm.serving.thread import BatchThread

POLICY = "content-security-policy"
NO_FRAMES = "frame-ancestors 'none'"


class Service:
    """The models of a server, and the threads that work for it."""

    def __init__(self, models: Mapping[str, ServedModel], stepping: BatchThread, filling: FillingThread) -> None:
        self.models, self.stepping, self.filling = models, stepping, filling

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def home(self, request: Request) -> Response:
        """Answer with the page of the only model, or of all models."""
        if len(self.models) == 1:
            return await show_page(*self.models.values())
        return await self.list_pages(request)

    async def list_pages(self, request: Request) -> Response:
        html = render_home(self.models, str(request.base_url).rstrip("/"))
        return HTMLResponse(html, headers={POLICY: f"{format_home_policy()}; {NO_FRAMES}"})

    async def write(self, request: Request) -> Response:
        return await show_page(choose_model(self.models, request.path_params["name"]))

    async def list_models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model.describe() for model in self.models.values()]})

    async def show_model(self, request: Request) -> Response:
        return JSONResponse(choose_model(self.models, request.path_params["name"]).describe())

    async def complete(self, request: Request) -> Response:
        parsed = CompletionRequest.parse(await read_object(request))
        return Completion(self.stepping, self.filling, choose_model(self.models, parsed.model), parsed).respond()

    async def chat(self, request: Request) -> Response:
        parsed = parse_chat(await read_object(request))
        return ChatCompletion(self.stepping, self.filling, choose_model(self.models, parsed.model), parsed).respond()

    async def infill(self, request: Request) -> Response:
        parsed = InfillRequest.parse(await read_object(request))
        work = Infilling(self.stepping, self.filling, choose_model(self.models, parsed.model), parsed)
        return DelayedJSON(work.run(), work.cancel)

    async def tokenizer_info(self, request: Request) -> Response:
        return JSONResponse(describe_tokenizer(choose_model(self.models, request.query_params.get("model"))))

    async def tokenize(self, request: Request) -> Response:
        values = await read_object(request)
        return JSONResponse(tokenize(values, self.choose_model(values)))

    async def detokenize(self, request: Request) -> Response:
        values = await read_object(request)
        return JSONResponse(detokenize(values, self.choose_model(values)))

    def choose_model(self, values: Mapping[str, Any]) -> ServedModel:
        """Return the model that a request names, or the first one. Raises ApiError."""
        fields = Fields(values)
        return choose_model(self.models, fields.get_text("model") if "model" in fields else None)

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/", self.home),
            Route("/models", self.list_pages),
            Route("/write/{name:path}", self.write),
            Route("/health", self.health),
            Route("/v1/models", self.list_models),
            Route("/v1/models/{name:path}", self.show_model),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/infill", self.infill, methods=["POST"]),
            Route("/tokenizer_info", self.tokenizer_info),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
        ]


async def show_page(model: ServedModel) -> Response:
    """Answer with the page on which a model writes. Compressing its weights takes a second for a large one."""
    html = await asyncio.to_thread(render_model_page, model)
    return HTMLResponse(html, headers={POLICY: f"{format_page_policy()}; {NO_FRAMES}"})


def build_application(service: Service, names: frozenset[str] | None, key: str | None) -> Starlette:
    """Return the ASGI application. `names` and `key` are those of `Guard`."""
    return Starlette(
        routes=service.routes,
        middleware=[Middleware(Guard, names=names, key=key)],
        exception_handlers={ApiError: answer_error, HTTPException: answer_http_error},
    )


async def answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.to_response()


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Answer a path that does not exist, or one that has another method."""
    assert isinstance(error, HTTPException)
    message = f"there is no {request.method} {request.scope['path']}"
    return ApiError(message, status=error.status_code, headers=error.headers).to_response()
