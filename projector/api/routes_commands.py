"""Commands and webhooks: forwarded to ingest, which appends them to the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from projector.api import models
from projector.api.problems import ProblemError
from projector.api.routes_query import found, services_of
from projector.api.services import Services
from schemas.variables import TOGETHER_BYTES_MAX, environment_name, names_max

router = APIRouter(prefix="/api/v1", responses=models.PROBLEMS, tags=["commands"])

COMMAND_BYTES_MAX = 1024 * 1024
WEBHOOK_BYTES_MAX = 25 * 1024 * 1024

Receive = Callable[[], Awaitable[Any]]

_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": models.Accepted, "description": "The event is in the log."}
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What was read of a request's body; `whole` unless there is more of it, or its client went."""

    content: bytes
    whole: bool

    def again(self, receive: Receive) -> Receive:
        """Return what gives the body again, then what `receive` still has."""
        given = False

        async def from_here() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": self.content, "more_body": not self.whole}

        return from_here

    def value_bytes(self) -> int | None:
        """Return the bytes of a variable's value; None for a body that is refused as a whole."""
        if not self.whole or len(self.content) > COMMAND_BYTES_MAX:
            return None
        try:
            value = msgspec.json.decode(self.content)["value"]
            return len(value.encode()) if isinstance(value, str) else None
        except (msgspec.MsgspecError, UnicodeError, RecursionError, LookupError, TypeError):
            return None


async def _body(request: Request) -> Body:
    """Read a body up to the limit of commands; forwarding refuses what is larger."""
    content = bytearray()
    while len(content) <= COMMAND_BYTES_MAX:
        message = await request.receive()
        content += message.get("body", b"")
        if message["type"] == "http.disconnect":
            break
        if not message.get("more_body", False):
            return Body(content=bytes(content), whole=True)
    return Body(content=bytes(content), whole=False)


class Forwarded(Response):
    """An answer that is ingest's."""

    def __init__(
        self,
        services: Services,
        query: bytes | None = None,
        *,
        read: Body | None = None,
    ) -> None:
        """`query` replaces the request's own; `read` is what was read of its body already."""
        super().__init__()
        self._read = read
        self._services = services
        self._query = query

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the request on."""
        await self._services.upstream.forward(
            scope,
            receive if self._read is None else self._read.again(receive),
            send,
            body_bytes_max=COMMAND_BYTES_MAX,
            query=self._query,
            authorization=b"Bearer " + self._services.wiring.token.read(),
        )


async def repository_of(services: Services, run_id: str) -> str:
    """Return whose run it is; ProblemError 404."""
    text = await services.queries.text("run_repository", values={"run_id": run_id})
    if text is None:
        raise ProblemError(404, f"There is no run {run_id}.", code="no-such-run")
    return str(msgspec.json.decode(text)["repository"])


async def _run_command(request: Request, run_id: str) -> Forwarded:
    services = services_of(request)
    repository = await repository_of(services, run_id)
    return Forwarded(services, f"repository={quote(repository, safe='')}".encode())


@router.post(
    "/runs/{run_id}/cancel",
    summary="Ask that a run end",
    status_code=202,
    responses=_ACCEPTED,
    response_model=None,
)
async def cancel_run(request: Request, run_id: str) -> Forwarded:
    """Body (optional): {"reason": "…"}. Waiting jobs end at once, running ones in their grace."""
    return await _run_command(request, run_id)


@router.post(
    "/runs/{run_id}/approve",
    summary="Let a waiting run start",
    status_code=202,
    responses=_ACCEPTED,
    response_model=None,
)
async def approve_run(request: Request, run_id: str) -> Forwarded:
    """For runs of a fork's pull request, which wait until someone looked at them."""
    return await _run_command(request, run_id)


@router.post("/repositories", summary="Register a repository", status_code=201, response_model=None)
async def add_repository(request: Request) -> Forwarded:
    """Body: {name, provider, clone_url, default_branch?, token?, pools?, fork_pull_requests?}.

    The answer has the webhook's URL and secret.
    """
    return Forwarded(services_of(request))


@router.post(
    "/repositories/{repository:path}/rotate-secret",
    summary="Replace a repository's webhook secret",
    response_model=None,
)
async def rotate_secret(request: Request, repository: str) -> Forwarded:  # noqa: ARG001
    """The old secret ends at once."""
    return Forwarded(services_of(request))


@router.post(
    "/repositories/{repository:path}/dispatches",
    summary="Start a workflow",
    status_code=202,
    responses=_ACCEPTED,
    response_model=None,
)
async def dispatch(request: Request, repository: str) -> Forwarded:  # noqa: ARG001
    """Body: {workflow, ref?, inputs?}."""
    return Forwarded(services_of(request))


@router.post(
    "/repositories/{repository:path}/repository_dispatches",
    summary="Start what listens to repository_dispatch",
    status_code=202,
    responses=_ACCEPTED,
    response_model=None,
)
async def repository_dispatch(request: Request, repository: str) -> Forwarded:  # noqa: ARG001
    """Body: {event_type, client_payload?}. Workflows of the default branch see it as an event."""
    return Forwarded(services_of(request))


@router.get("/repositories/{repository:path}/secrets", summary="List names of secrets",
            response_model=None)  # fmt: skip
@router.get("/repositories/{repository:path}/secrets/{name}", summary="Say whether a secret is set",
            response_model=None)  # fmt: skip
@router.put("/repositories/{repository:path}/secrets/{name}", summary="Set a secret",
            response_model=None)  # fmt: skip
@router.delete("/repositories/{repository:path}/secrets/{name}", summary="Remove a secret",
               response_model=None)  # fmt: skip
async def secrets(request: Request, repository: str, name: str = "") -> Forwarded:  # noqa: ARG001
    """Values go in and never come out."""
    return Forwarded(services_of(request))


@router.get("/secrets", summary="List names of secrets of the installation", response_model=None)
@router.put("/secrets/{name}", summary="Set a secret of the installation", response_model=None)
@router.delete(
    "/secrets/{name}", summary="Remove a secret of the installation", response_model=None
)
async def global_secrets(request: Request, name: str = "") -> Forwarded:  # noqa: ARG001
    """Every repository's jobs can have them."""
    return Forwarded(services_of(request))


Environment = Annotated[
    str, Query(description="Of this environment; none for those of the repository itself.")
]
_VARIABLES: dict[int | str, dict[str, Any]] = {200: {"model": models.VariableList}}


@router.get(
    "/repositories/{repository:path}/variables",
    summary="List a repository's variables",
    responses=_VARIABLES,
)
async def list_variables(request: Request, repository: str, environment: Environment = "") -> Any:
    """Of one scope, as set; `vars` of a job are those of its environment, repository and all."""
    return await _variables(request, repository, environment)


@router.get("/variables", summary="List variables of the installation", responses=_VARIABLES)
async def list_global_variables(request: Request) -> Any:
    """Every repository's jobs have them."""
    return await _variables(request, "", "")


@router.put("/repositories/{repository:path}/variables/{name}", summary="Set a variable",
            status_code=202, responses=_ACCEPTED, response_model=None)  # fmt: skip
async def set_variable(
    request: Request, repository: str, name: str, environment: Environment = ""
) -> Forwarded:
    """Body: {"value": "…"}. Jobs that are assigned from now on have it."""
    return await _set_variable(request, repository, environment, name)


@router.put("/variables/{name}", summary="Set a variable of the installation",
            status_code=202, responses=_ACCEPTED, response_model=None)  # fmt: skip
async def set_global_variable(request: Request, name: str) -> Forwarded:
    """Body: {"value": "…"}."""
    return await _set_variable(request, "", "", name)


@router.delete("/repositories/{repository:path}/variables/{name}", summary="Remove a variable",
               status_code=202, responses=_ACCEPTED, response_model=None)  # fmt: skip
async def remove_variable(request: Request, repository: str, name: str) -> Forwarded:  # noqa: ARG001
    """Its history stays."""
    return Forwarded(services_of(request))


@router.delete("/variables/{name}", summary="Remove a variable of the installation",
               status_code=202, responses=_ACCEPTED, response_model=None)  # fmt: skip
async def remove_global_variable(request: Request, name: str) -> Forwarded:  # noqa: ARG001
    """Its history stays."""
    return Forwarded(services_of(request))


async def _variables(request: Request, repository: str, environment: str) -> Response:
    values = {"repository": repository, "environment": environment_name(environment)}
    text = await services_of(request).queries.text("variables", values=values)
    return found(text, f"repository {repository}")


async def _set_variable(
    request: Request, repository: str, environment: str, name: str
) -> Forwarded:
    """Send it on unless the scope is full: ingest does not know what is set."""
    services = services_of(request)
    values = {
        "repository": repository,
        "environment": environment_name(environment),
        "name": name.upper(),
    }
    beside = await services.queries.value("variables_beside", values=values)
    room = TOGETHER_BYTES_MAX - beside["bytes"] - len(name)
    if beside["count"] >= names_max(repository, environment) or room < 0:
        raise ProblemError(
            422,
            f"There are {beside['count']} variables of {beside['bytes']} bytes, which is all that "
            "this scope may have: remove one first.",
            code="too-many-variables",
        )
    body = await _body(request)
    size = body.value_bytes()
    if size is not None and size > room:
        raise ProblemError(
            422,
            f"The value has {size} bytes, and there is room for {room}: all variables of a scope "
            f"may have {TOGETHER_BYTES_MAX} bytes, the {beside['count']} others and the name take "
            f"{TOGETHER_BYTES_MAX - room}. Use a shorter value, or remove another variable.",
            code="variable-too-large",
        )
    return Forwarded(services, read=body)


@router.delete(
    "/repositories/{repository:path}", summary="Stop serving a repository", response_model=None
)
async def remove_repository(request: Request, repository: str) -> Forwarded:  # noqa: ARG001
    """Its history stays."""
    return Forwarded(services_of(request))
