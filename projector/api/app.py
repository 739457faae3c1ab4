"""Puts the public origin together: framework for queries and pages, plain ASGI around it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from infra.health import metrics_page
from projector.api import pages, routes_commands, routes_facts, routes_logs, routes_query
from projector.api.guard import Guard, hosts_of
from projector.api.problems import ProblemError, problem, response_of
from projector.api.services import Services, Wiring

logger = logging.getLogger(__name__)

_DESCRIPTION = """
Everything that Tailrace knows, derived from its log. Instants are milliseconds since the epoch;
every list is paged by `next_cursor`; `as_of` is the offset of the log up to which an answer knows.
Errors are RFC 9457 problem documents. Send `Authorization: Bearer TOKEN`.
"""


def make_app(wiring: Wiring) -> Any:
    """Return the ASGI application."""
    services = Services(wiring)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await services.open()
        try:
            yield
        finally:
            await services.close()

    app = FastAPI(
        title="Tailrace",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        lifespan=lifespan,
    )
    app.state.services = services
    _add_health(app, services)
    app.include_router(routes_logs.router)
    app.include_router(routes_commands.router)
    app.include_router(routes_facts.router)
    app.include_router(routes_query.router)
    app.include_router(pages.router)
    _add_errors(app)
    guard = Guard(
        _webhooks_first(app, services),
        token=wiring.token,
        public_url=wiring.public_url,
        hosts=hosts_of(wiring.public_url, wiring.public_port, wiring.allow_hosts),
        clock=wiring.clock,
        meters=wiring.meters,
    )
    return _Application(guard, app, services)


class _Application:
    """The guarded application; `services` are for whoever wires or tests it."""

    def __init__(self, guard: Guard, app: FastAPI, services: Services) -> None:
        self._guard = guard
        self.app = app
        self.services = services

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._guard(scope, receive, send)


def _webhooks_first(app: FastAPI, services: Services) -> Any:
    """Forward webhooks before the framework sees them: it has nothing to add but time."""

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/webhooks/"):
            await services.upstream.forward(
                scope, receive, send, body_bytes_max=routes_commands.WEBHOOK_BYTES_MAX
            )
        else:
            await app(scope, receive, send)

    return dispatch


def _add_health(app: FastAPI, services: Services) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return _json(200, {"status": "ok", "service": "projector.api"})

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        found = await services.readiness()
        status = 200 if found["status"] == "ok" else 503
        return _json(status, {"service": "projector.api", **found})

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        body, content_type = metrics_page()
        return Response(body, media_type=content_type)


def _json(status: int, content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), status_code=status, media_type="application/json")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ProblemError)
    async def on_problem(request: Request, error: ProblemError) -> Response:
        if pages.is_page(request):
            return pages.error_page(request, error.status, error.detail)
        return response_of(error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        errors = [
            {"where": ".".join(map(str, item["loc"])), "message": item["msg"]}
            for item in error.errors()
        ]
        first = errors[0]
        return problem(
            422, f"{first['where']}: {first['message']}", code="invalid-request", errors=errors
        )

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        detail = f"{request.method} {request.url.path}: {error.detail}"
        if pages.is_page(request):
            return pages.error_page(request, error.status_code, detail)
        return problem(error.status_code, detail, headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def on_failure(_: Request, error: Exception) -> Response:
        logger.error("a request failed", exc_info=error)
        return problem(
            500, "Something is wrong in Tailrace itself; its log says more.", code="internal"
        )
