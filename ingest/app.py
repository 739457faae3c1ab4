"""The HTTP application of ingest: the only place that maps paths to webhooks and commands."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from infra.auth import TokenFile
from infra.health import is_ready, metrics_page
from infra.vault import VaultAwayError, VaultError
from ingest.commands import Commands, NewRepository
from ingest.keys import WebhookKeys
from ingest.log import NotAcknowledgedError
from ingest.problems import Problem
from ingest.routes import Webhooks
from ingest.scopes import ScopeName

COMMAND_BYTES_MAX = 256 * 1024
KEY_CHARS_MAX = 128

Answer = tuple[int, Any]
Command = Callable[[Request, Mapping[str, Any]], Awaitable[Answer]]


def create_app(
    *,
    webhooks: Webhooks,
    commands: Commands,
    keys: WebhookKeys,
    token: TokenFile,
    readiness: Callable[[], Mapping[str, Any]],
) -> FastAPI:
    """Return the application; starting it loads the webhook keys."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await keys.start()
        yield
        await keys.close()

    app = _WebhooksFirst(
        title="Tailrace ingest", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    app.intake = webhooks
    _add_health(app, readiness)
    for method, path, command in _routes(commands):
        app.add_route(path, _endpoint(command, token), methods=[method])
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    return app


class _WebhooksFirst(FastAPI):
    """Answers webhooks before the framework looks at them.

    It has nothing to add but time, a third of a request's, and the body must not be touched
    before its signature was checked.
    """

    intake: Webhooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        parts: list[str] = scope["path"].split("/", 3) if scope["type"] == "http" else []
        if len(parts) != _WEBHOOK_PARTS or parts[1] != "webhooks":
            await super().__call__(scope, receive, send)
            return
        if scope["method"] == "POST":
            response = await self.intake.answer(Request(scope, receive), parts[2], parts[3])
        else:
            detail = "a webhook is a POST request"
            response = Problem(405, detail, headers={"Allow": "POST"}).response()
        await response(scope, receive, send)


_WEBHOOK_PARTS = 4


def _routes(commands: Commands) -> list[tuple[str, str, Command]]:
    """Return the table of commands; a repository's name may hold slashes, so its tail is fixed."""
    repository = "/api/v1/repositories/{repository:path}"
    handlers = _Handlers(commands)
    return [
        ("POST", "/api/v1/repositories", handlers.add),
        ("POST", f"{repository}/rotate-secret", handlers.rotate),
        ("POST", f"{repository}/dispatches", handlers.dispatch),
        ("POST", f"{repository}/repository_dispatches", handlers.repository_dispatch),
        ("GET", f"{repository}/secrets", handlers.list_secrets),
        ("PUT", f"{repository}/secrets/{{name}}", handlers.set_secret),
        ("DELETE", f"{repository}/secrets/{{name}}", handlers.delete_secret),
        ("PUT", f"{repository}/variables/{{name}}", handlers.set_variable),
        ("DELETE", f"{repository}/variables/{{name}}", handlers.delete_variable),
        ("GET", "/api/v1/secrets", handlers.list_secrets),
        ("PUT", "/api/v1/secrets/{name}", handlers.set_secret),
        ("DELETE", "/api/v1/secrets/{name}", handlers.delete_secret),
        ("PUT", "/api/v1/variables/{name}", handlers.set_variable),
        ("DELETE", "/api/v1/variables/{name}", handlers.delete_variable),
        ("DELETE", repository, handlers.remove),
        ("POST", "/api/v1/runs/{run_id}/cancel", handlers.cancel),
        ("POST", "/api/v1/runs/{run_id}/approve", handlers.approve),
    ]


class _Handlers:
    """Reads requests for `Commands`."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def add(self, request: Request, body: Mapping[str, Any]) -> Answer:
        new = NewRepository(
            name=_text(body, "name"),
            provider=_text(body, "provider", "git"),
            clone_url=_text(body, "clone_url"),
            default_branch=_text(body, "default_branch", ""),
            token=_text(body, "token", ""),
            pools=tuple(_texts(body, "pools")) or ("default",),
            fork_pull_requests=_text(body, "fork_pull_requests", "approve"),
            fork_secrets=_text(body, "fork_secrets", "never"),
            variables=_map_of_texts(body, "variables"),
        )
        return 201, await self._commands.add_repository(new, _actor(request), _key(request))

    async def remove(self, request: Request, _: Mapping[str, Any]) -> Answer:
        return 202, await self._commands.remove_repository(_repository(request), _actor(request))

    async def rotate(self, request: Request, _: Mapping[str, Any]) -> Answer:
        return 200, await self._commands.rotate_secret(_repository(request))

    async def dispatch(self, request: Request, body: Mapping[str, Any]) -> Answer:
        inputs = body.get("inputs") or {}
        if not isinstance(inputs, dict):
            raise Problem(422, "`inputs` must be an object of input values")
        return 202, await self._commands.dispatch(
            _repository(request),
            _text(body, "workflow"),
            _text(body, "ref", ""),
            inputs,
            _actor(request),
            _key(request),
        )

    async def repository_dispatch(self, request: Request, body: Mapping[str, Any]) -> Answer:
        client_payload = body.get("client_payload") or {}
        if not isinstance(client_payload, dict):
            raise Problem(422, "`client_payload` must be an object")
        return 202, await self._commands.repository_dispatch(
            _repository(request),
            _text(body, "event_type"),
            client_payload,
            _actor(request),
            _key(request),
        )

    async def cancel(self, request: Request, body: Mapping[str, Any]) -> Answer:
        return 202, await self._commands.cancel(
            request.path_params["run_id"],
            _run_repository(request, body),
            _text(body, "reason", ""),
            _actor(request),
            _key(request),
        )

    async def approve(self, request: Request, body: Mapping[str, Any]) -> Answer:
        return 202, await self._commands.approve(
            request.path_params["run_id"], _run_repository(request, body), _actor(request)
        )

    async def list_secrets(self, request: Request, _: Mapping[str, Any]) -> Answer:
        infos = await self._commands.secret_infos(_scope(request))
        items = [
            {"name": info.name, "created_at": info.created_at, "updated_at": info.updated_at}
            for info in infos
        ]
        return 200, {"items": items}

    async def set_secret(self, request: Request, body: Mapping[str, Any]) -> Answer:
        name = request.path_params["name"]
        is_new = await self._commands.set_secret(_scope(request), name, body.get("value"))
        return (201 if is_new else 200), {"name": name.upper()}

    async def delete_secret(self, request: Request, _: Mapping[str, Any]) -> Answer:
        await self._commands.delete_secret(_scope(request), request.path_params["name"])
        return 204, None

    async def set_variable(self, request: Request, body: Mapping[str, Any]) -> Answer:
        return 202, await self._commands.set_variable(
            _scope(request), request.path_params["name"], body.get("value"), _actor(request)
        )

    async def delete_variable(self, request: Request, _: Mapping[str, Any]) -> Answer:
        return 202, await self._commands.delete_variable(
            _scope(request), request.path_params["name"], _actor(request)
        )


def _endpoint(command: Command, token: TokenFile) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            if not token.accepts(request.headers.get("authorization")):
                raise Problem(  # noqa: TRY301 - one place makes responses of problems
                    401,
                    "this needs `Authorization: Bearer` with the token in TAILRACE_HOME/secrets/"
                    "token",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            status, content = await command(request, await _body(request))
        except Problem as problem:
            return problem.response()
        except NotAcknowledgedError as error:
            return Problem(
                503, f"the command was not stored: {error}", headers={"Retry-After": "5"}
            ).response()
        except VaultAwayError as error:
            return Problem(503, str(error), headers={"Retry-After": "5"}).response()
        except VaultError as error:
            return Problem(500, str(error)).response()
        return Response(status_code=status) if content is None else JSONResponse(content, status)

    return endpoint


def _add_health(app: FastAPI, readiness: Callable[[], Mapping[str, Any]]) -> None:
    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok", "service": "ingest"})

    async def readyz(_: Request) -> Response:
        found = readiness()
        return JSONResponse({"service": "ingest", **found}, 200 if is_ready(found) else 503)

    async def metrics(_: Request) -> Response:
        page, content_type = metrics_page()
        return Response(page, headers={"Content-Type": content_type})

    app.add_route("/healthz", healthz)
    app.add_route("/readyz", readyz)
    app.add_route("/metrics", metrics)


async def _http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = {404: "there is nothing at this path", 405: "this path has other methods"}
    return Problem(status, detail.get(status, str(error))).response()


async def _unexpected(_: Request, error: Exception) -> Response:
    return Problem(500, f"a fault of ours: {type(error).__name__}; see the log").response()


async def _body(request: Request) -> Mapping[str, Any]:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > COMMAND_BYTES_MAX:
            raise Problem(413, f"a command may have {COMMAND_BYTES_MAX} bytes")
    if not raw:
        return {}
    try:
        body = msgspec.json.decode(bytes(raw))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Problem(400, "the body must be a JSON object")
    return body


def _text(body: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (default is None and not value) or "\x00" in value:
        raise Problem(422, f"`{name}` must be a text")
    return value


def _texts(body: Mapping[str, Any], name: str) -> list[str]:
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Problem(422, f"`{name}` must be a list of texts")
    return value


def _map_of_texts(body: Mapping[str, Any], name: str) -> dict[str, str]:
    value = body.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise Problem(422, f"`{name}` must be an object of texts")
    return value


def _scope(request: Request) -> ScopeName:
    """Return whose secret or variable it is: a path without a repository means everybody's."""
    repository = _repository(request) if "repository" in request.path_params else ""
    return ScopeName.of(repository, request.query_params.get("environment", ""))


def _repository(request: Request) -> str:
    return str(request.path_params["repository"])


def _run_repository(request: Request, body: Mapping[str, Any]) -> str:
    return request.query_params.get("repository") or _text(body, "repository", "")


def _actor(request: Request) -> str:
    """Return who asks: the API says it for a signed-in user, else it is the local one."""
    given = request.headers.get("x-tailrace-actor", "")
    return given[:100] if given else getpass.getuser()


def _key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if len(key) > KEY_CHARS_MAX or not key.isascii():
        raise Problem(400, f"Idempotency-Key: at most {KEY_CHARS_MAX} ASCII characters")
    return key
