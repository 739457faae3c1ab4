"""Answers that are not the wanted ones: problem details, as RFC 9457 has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


class ProblemError(Exception):
    """An answer that is not the wanted one; `detail` says what to do about it."""

    def __init__(
        self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer `status`."""
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers


def add_problems(app: FastAPI) -> None:
    """Let the application answer by raising ProblemError."""

    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> JSONResponse:
        return JSONResponse(
            {
                "type": "about:blank",
                "title": error.title,
                "status": error.status,
                "detail": error.detail,
            },
            status_code=error.status,
            media_type="application/problem+json",
            headers=error.headers,
        )


def read(model: type[M], text: bytes | str, where: str = "the body") -> M:
    """Return JSON as a model; ProblemError 400 says what is wrong with it.

    What was given is not repeated: it may be anything.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise ProblemError(400, "Bad request", f"{where}: {path}: {first['msg']}") from None
