"""`GET /api/v1/jobs/{job_id}/attempts/{n}/log…`: lines of a log, live or archived."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from infra.objects import ObjectStoreError
from projector.api import models
from projector.api.problems import ProblemError
from projector.api.routes_query import open_stream, services_of
from projector.api.sse import ByteStream, EventStream

router = APIRouter(prefix="/api/v1", responses=models.PROBLEMS, tags=["logs"])

LINES_MAX = 50_000
_TEXT = "text/plain; charset=utf-8"


@router.get(
    "/jobs/{job_id}/attempts/{attempt}/log",
    summary="Read lines of a log",
    responses={200: {"content": {"text/plain": {"example": "+ make test\nok\n"}}}},
)
async def read_log(
    request: Request,
    job_id: str,
    attempt: int,
    *,
    from_line: Annotated[int, Query(ge=0, description="Counted from 0.")] = 0,
    limit: Annotated[int, Query(ge=1, le=LINES_MAX)] = 5_000,
) -> Response:
    """`X-Next-Line` is where to go on; `X-Complete` says whether the log ends there."""
    logs = services_of(request).logs
    log = await logs.find((job_id, attempt))
    try:
        text, next_line, complete = await logs.read(log, from_line, limit)
    except ObjectStoreError as error:
        raise ProblemError(503, str(error), code="object-store-away") from error
    headers = {"X-Next-Line": str(next_line), "X-Complete": "true" if complete else "false"}
    return Response(text, media_type=_TEXT, headers=headers)


@router.get(
    "/jobs/{job_id}/attempts/{attempt}/log/raw",
    summary="Download a whole log",
    responses={200: {"content": {"text/plain": {}}}},
)
async def read_raw(request: Request, job_id: str, attempt: int) -> Response:
    """All lines that are there now, as they were printed."""
    logs = services_of(request).logs
    log = await logs.find((job_id, attempt))
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in f"{job_id}-{attempt}")
    headers = {
        "Content-Type": _TEXT,
        "Content-Disposition": f'attachment; filename="{name}.log"',
    }
    return ByteStream(logs.whole(log), headers)


@router.get(
    "/jobs/{job_id}/attempts/{attempt}/log/stream",
    summary="Follow a log (server-sent events)",
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def stream_log(
    request: Request,
    job_id: str,
    attempt: int,
    *,
    from_line: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventStream:
    """From `from_line`, or after `Last-Event-ID`, to the log's end.

    `event: lines` has {first_line, lines: [{n, t, s, step, text}]} and as id the last line's
    number; `event: hole` {first_line, lines} names lines that never came; `event: end` has {lines,
    sha256, conclusion, complete}.
    """
    services = services_of(request)
    key = (job_id, attempt)
    await services.logs.find(key)
    if (last_event_id or "").isdecimal():
        from_line = int(last_event_id or "0") + 1
    return open_stream(services, services.logs.follow(key, from_line), "logs")
