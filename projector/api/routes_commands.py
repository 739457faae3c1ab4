"""Commands and webhooks: forwarded to ingest, which appends them to the log."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from projector.api import models
from projector.api.problems import ProblemError
from projector.api.routes_query import services_of
from projector.api.services import Services

router = APIRouter(prefix="/api/v1", responses=models.PROBLEMS, tags=["commands"])

COMMAND_BYTES_MAX = 1024 * 1024
WEBHOOK_BYTES_MAX = 25 * 1024 * 1024

_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"model": models.Accepted, "description": "The event is in the log."}
}


class Forwarded(Response):
    """An answer that is ingest's."""

    def __init__(self, services: Services, query: bytes | None = None) -> None:
        """`query` replaces the request's own."""
        super().__init__()
        self._services = services
        self._query = query

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the request on."""
        await self._services.upstream.forward(
            scope,
            receive,
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


@router.delete(
    "/repositories/{repository:path}", summary="Stop serving a repository", response_model=None
)
async def remove_repository(request: Request, repository: str) -> Forwarded:  # noqa: ARG001
    """Its history stays."""
    return Forwarded(services_of(request))
