"""Asks an ASGI application without a server: one request, one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp


def ask(
    app: ASGIApp, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers (names in lower case) and body of an answer."""
    path, _, query = url.partition("?")
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "root_path": "", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in {**headers, "content-length": str(len(body))}.items()
        ],
    }  # fmt: skip
    told: list[dict[str, Any]] = []
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return parts.pop() if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        told.append(message)

    async def whole() -> None:
        await app(scope, receive, send)

    asyncio.run(whole())
    start = next(message for message in told if message["type"] == "http.response.start")
    content = b"".join(message.get("body", b"") for message in told)
    return (
        int(start["status"]),
        {name.decode(): value.decode() for name, value in start["headers"]},
        content,
    )
