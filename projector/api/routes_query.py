"""`GET /api/v1/…`: what the read models know, as JSON made by PostgreSQL."""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from infra import metrics
from projector.api import models
from projector.api.problems import ProblemError
from projector.api.queries import LIMIT, LIMIT_MAX
from projector.api.services import Services
from projector.api.sse import EventStream

router = APIRouter(prefix="/api/v1", responses=models.PROBLEMS)

Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Items a page.")]
Text = Annotated[str | None, Query(max_length=500)]

_JSON = "application/json"


def services_of(request: Request) -> Services:
    """Return the parts of the running API."""
    return cast("Services", request.app.state.services)


def json_of(content: Any) -> Response:
    """Return a JSON answer of a value."""
    return Response(msgspec.json.encode(content), media_type=_JSON)


def found(text: str | None, what: str) -> Response:
    """Return JSON text as an answer; ProblemError 404 naming `what` when there is none."""
    if text is None:
        raise ProblemError(404, f"There is no {what}.", code=f"no-such-{what.split(maxsplit=1)[0]}")
    return Response(text, media_type=_JSON)


def given(**filters: str | None) -> dict[str, str]:
    """Return the filters that a request has."""
    return {name: value for name, value in filters.items() if value}


@router.get("/runs", summary="List runs, newest first", responses={200: {"model": models.RunPage}})
async def list_runs(
    request: Request,
    *,
    repository: Text = None,
    branch: Text = None,
    event: Text = None,
    status: Text = None,
    conclusion: Text = None,
    workflow: Annotated[str | None, Query(description="The file's path.")] = None,
    actor: Text = None,
    cursor: Cursor = None,
    limit: Limit = LIMIT,
) -> Response:
    """Filters narrow the list; each must match exactly."""
    filters = given(repository=repository, branch=branch, event=event, status=status,
                    conclusion=conclusion, workflow=workflow, actor=actor)  # fmt: skip
    return json_of(await services_of(request).queries.runs(filters, cursor, limit))


@router.get(
    "/runs/stream",
    summary="Follow changes of runs (server-sent events)",
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def stream_runs(
    request: Request,
    *,
    run_id: Text = None,
    repository: Text = None,
    branch: Text = None,
    workflow: Text = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventStream:
    """`event: run` with the run as it is now; `id:` is the offset at which it changed.

    With `run_id` the run comes whole, with jobs and steps, first as it is and then after each
    change; else runs come as in the list, beginning after `Last-Event-ID`.
    """
    services = services_of(request)
    filters = given(repository=repository, branch=branch, workflow=workflow)
    after = int(last_event_id) if last_event_id and last_event_id.isdecimal() else None
    if run_id is not None:
        found(await services.queries.text("run_repository", values={"run_id": run_id}),
              f"run {run_id}")  # fmt: skip
    return open_stream(services, services.changes.watch(run_id, filters, after), "runs")


def open_stream(services: Services, events: Any, name: str) -> EventStream:
    """Return a stream that is counted while it is open."""
    count = services.streams[name] = services.streams.get(name, 0) + 1
    services.wiring.meters.set(metrics.STREAM_CLIENTS, count, name)

    def ended() -> None:
        services.streams[name] -= 1
        services.wiring.meters.set(metrics.STREAM_CLIENTS, services.streams[name], name)

    return EventStream(events, ended, services.closing)


@router.get(
    "/runs/{run_id}",
    summary="Show a run with jobs, attempts and steps",
    responses={200: {"model": models.RunDetail}},
)
async def show_run(request: Request, run_id: str) -> Response:
    """A matrix shows as its legs once it is expanded."""
    values = {"run_id": run_id, "attempt": None}
    text = await services_of(request).queries.text("run", values=values)
    return found(text, f"run {run_id}")


@router.get(
    "/runs/{run_id}/events",
    summary="Show a run's audit trail",
    responses={200: {"model": models.TrailPage}},
)
async def show_events(
    request: Request, run_id: str, *, cursor: Cursor = None, limit: Limit = LIMIT_MAX
) -> Response:
    """Every event about the run and its delivery, in the order of the log.

    `data` leaves out texts longer than 4096 characters; the record at (`cell`, `offset`) has them.
    """
    queries = services_of(request).queries
    found(await queries.text("run_repository", values={"run_id": run_id}), f"run {run_id}")
    return json_of(await queries.run_events(run_id, cursor, limit))


@router.get(
    "/jobs/{job_id}",
    summary="Show a job with its attempts",
    responses={200: {"model": models.JobDetail}},
)
async def show_job(
    request: Request,
    job_id: str,
    *,
    attempt: Annotated[int | None, Query(description="Whose steps; the live one's.")] = None,
) -> Response:
    """Steps are of the live attempt unless another is asked for."""
    values = {"job_id": job_id, "attempt": attempt}
    return found(await services_of(request).queries.text("job", values=values), f"job {job_id}")


@router.get("/repositories", summary="List repositories by name")
async def list_repositories(
    request: Request, *, cursor: Cursor = None, limit: Limit = LIMIT
) -> Response:
    """Each with its latest run."""
    return json_of(await services_of(request).queries.repositories(cursor, limit))


@router.get("/workflows", summary="List workflow files")
async def list_workflows(
    request: Request, *, repository: Text = None, cursor: Cursor = None, limit: Limit = LIMIT
) -> Response:
    """Files on the default branch, and files that runs were made of."""
    return json_of(await services_of(request).queries.workflows(repository, cursor, limit))


@router.get("/deliveries", summary="List deliveries, newest first")
async def list_deliveries(
    request: Request,
    *,
    repository: Text = None,
    status: Annotated[
        str | None, Query(description="received, planned, ignored or failed.")
    ] = None,
    event: Text = None,
    cursor: Cursor = None,
    limit: Limit = LIMIT,
) -> Response:
    """Every accepted delivery is here, also one that started nothing, with the reason."""
    filters = given(repository=repository, status=status, event=event)
    return json_of(await services_of(request).queries.deliveries(filters, cursor, limit))


@router.get("/deliveries/{delivery_id:path}", summary="Show a delivery and what became of it")
async def show_delivery(request: Request, delivery_id: str) -> Response:
    """`outcomes` says for each workflow file whether it was planned, rejected or ignored."""
    text = await services_of(request).queries.text("delivery", values={"delivery_id": delivery_id})
    return found(text, f"delivery {delivery_id}")


@router.get("/runners", summary="List runners and what they run")
async def list_runners(request: Request) -> Response:
    """A runner shows its highest boot."""
    return found(await services_of(request).queries.text("runners"), "runners")


@router.get("/pools", summary="List pools with slots and queue")
async def list_pools(request: Request) -> Response:
    """Pools that were configured or have a runner."""
    return found(await services_of(request).queries.text("pools"), "pools")


@router.get("/queue", summary="List jobs that wait for a runner, longest first")
async def list_queue(request: Request, *, limit: Limit = LIMIT_MAX) -> Response:
    """`blocked` says why a job is not running."""
    text = await services_of(request).queries.text("queue", values={"limit": limit})
    return found(text, "queue")


@router.get("/repositories/{repository:path}", summary="Show a repository and its workflows")
async def show_repository(request: Request, repository: str) -> Response:
    """Its settings, its workflow files and its latest run."""
    text = await services_of(request).queries.text("repository", values={"name": repository})
    return found(text, f"repository {repository}")
