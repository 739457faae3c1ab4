"""Errors as RFC 9457 problem details: the only shape in which the API refuses something."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

PROBLEM_JSON = "application/problem+json"


class ProblemError(Exception):
    """A request that can't be answered; becomes a problem document."""

    def __init__(self, status: int, detail: str, *, code: str = "", **more: Any) -> None:
        """`detail` says what is wrong and what to do; `code` is stable for programs."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.more = more


def problem(
    status: int,
    detail: str,
    *,
    code: str = "",
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return a problem document as a response."""
    phrase = HTTPStatus(status).phrase
    content = {
        "type": f"urn:tailrace:problem:{code or phrase.lower().replace(' ', '-')}",
        "title": phrase,
        "status": status,
        "detail": detail,
        **more,
    }
    return Response(
        msgspec.json.encode(content), status_code=status, media_type=PROBLEM_JSON, headers=headers
    )


def response_of(error: ProblemError) -> Response:
    """Return the response of an error that was raised."""
    return problem(error.status, error.detail, code=error.code, **error.more)
