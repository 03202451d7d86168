"""/v1/chat/completions, for clients that only chat: the messages are one text, which the model continues.

A character-level model knows no roles and follows no instructions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from charlstm.serving.completions import Completion
from charlstm.serving.errors import ApiError
from charlstm.serving.parameters import CompletionRequest, reject_value

UNAVAILABLE = ("tools", "tool_choice", "functions", "function_call", "response_format", "audio", "logprobs", "suffix")
"""Fields that a client relies on. The rest is as for /v1/completions."""


class ChatCompletion(Completion):
    """The work for a request to /v1/chat/completions."""

    async def run(self) -> dict[str, Any]:
        """Return the whole response."""
        return to_chat(await super().run(), "chat.completion", "message")

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the response in pieces."""
        async for piece in super().stream():
            yield to_chat(piece, "chat.completion.chunk", "delta")


def parse_chat(values: Mapping[str, Any]) -> CompletionRequest:
    """Read the fields of a request. Raises ApiError."""
    for name in UNAVAILABLE:
        if values.get(name) not in (None, False, [], {"type": "text"}):
            raise ApiError(f"{name} is not supported by /v1/chat/completions", param=name)
    fields = {name: value for name, value in values.items() if name not in (*UNAVAILABLE, "messages", "prompt", "echo")}
    if fields.get("max_completion_tokens") is not None:
        fields["max_tokens"] = fields["max_completion_tokens"]
    return CompletionRequest.parse({**fields, "prompt": join_messages(values.get("messages"))})


def join_messages(messages: Any) -> str:
    """Return the texts of the messages, one after the other, without instructions, which no model here follows."""
    if not isinstance(messages, list) or not messages:
        reject_value("messages", "a list of messages", messages)
    return "".join(read_message(message) for message in messages if not is_instruction(message))


def is_instruction(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")


def read_message(message: Any) -> str:
    """Return the text of a message, which may be in parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
        content = "".join(str(part["text"]) for part in content)
    if not isinstance(content, str):
        raise ApiError("the content of a message must be a text", param="messages")
    return content


def to_chat(response: Mapping[str, Any], kind: str, key: str) -> dict[str, Any]:
    """Return an object of /v1/completions as one of /v1/chat/completions."""
    choices = [
        {
            "index": choice["index"],
            key: {"role": "assistant", "content": choice["text"]},
            "logprobs": None,
            "finish_reason": choice["finish_reason"],
        }
        for choice in response["choices"]
    ]
    return {**response, "object": kind, "choices": choices}
