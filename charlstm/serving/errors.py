"""Errors of the server, as JSON that OpenAI's clients understand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse


class ApiError(Exception):
    """A request that cannot be answered.

    status: the HTTP status.
    param: the field that is invalid, if one is.
    code: what went wrong, for programs.
    details: more keys of the error.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code
        self.details, self.headers = dict(details or {}), dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the body of the response."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {**error, **self.details}}

    def to_response(self) -> JSONResponse:
        return JSONResponse(self.to_dict(), self.status, headers=self.headers)
