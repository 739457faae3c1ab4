"""What jobs left behind: artifacts, annotations, groups of their logs."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from projector.api import models
from projector.api.problems import ProblemError
from projector.api.routes_query import found, services_of
from projector.api.stored import Download, Span, headers_of, open_file, span_of

router = APIRouter(prefix="/api/v1", responses=models.PROBLEMS, tags=["facts"])


@router.get(
    "/runs/{run_id}/artifacts",
    summary="List a run's artifacts by name",
    responses={200: {"model": models.ArtifactList}},
)
async def list_artifacts(request: Request, run_id: str) -> Response:
    """Expired ones, too, which can't be downloaded any more. Of a name the newest."""
    services = services_of(request)
    values = {"run_id": run_id, "now_ms": services.wiring.clock.now_ms()}
    return found(await services.queries.text("run_artifacts", values=values), f"run {run_id}")


@router.get(
    "/artifacts/{artifact_id}",
    summary="Show an artifact",
    responses={200: {"model": models.ArtifactDetail}},
)
async def show_artifact(request: Request, artifact_id: str) -> Response:
    """By the id that `upload-artifact` gives as its output `artifact-id`."""
    services = services_of(request)
    values = {"artifact_id": artifact_id, "now_ms": services.wiring.clock.now_ms()}
    text = await services.queries.text("artifact", values=values)
    return found(text, f"artifact {artifact_id}")


@router.head("/artifacts/{artifact_id}/zip", include_in_schema=False)
@router.get(
    "/artifacts/{artifact_id}/zip",
    summary="Download an artifact",
    responses={
        200: {"content": {"application/zip": {}}, "description": "The zip; `ETag` is its sha256."},
        206: {"content": {"application/zip": {}}, "description": "The part asked for by `Range`."},
        304: {"description": "The client has it (`If-None-Match`)."},
        410: {"model": models.Problem, "description": "It expired, or its file was removed."},
        503: {"model": models.Problem, "description": "Too many downloads: see `Retry-After`."},
    },
)
async def download_artifact(
    request: Request,
    artifact_id: str,
    *,
    range_: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Each piece is compared with its sha256 before it is sent, and the whole with its own."""
    services = services_of(request)
    place = await services.queries.value("artifact_place", values={"artifact_id": artifact_id})
    if place is None:
        raise ProblemError(404, f"There is no artifact {artifact_id}.", code="no-such-artifact")
    if 0 < place["expires_at"] <= services.wiring.clock.now_ms():
        raise ProblemError(
            410,
            f"The artifact {place['name']!r} has expired. Run its job again to make it anew; "
            "`retention-days` of upload-artifact says how long it is kept.",
            code="artifact-expired",
        )
    file = await open_file(services.wiring.objects, place)
    headers = headers_of(file.entry)
    etag = headers["ETag"]
    if if_none_match and etag in (part.strip() for part in if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    span = span_of(range_, file.entry.size_bytes) if if_range in (None, etag) else None
    if span is None:
        return Download(file, Span(0, file.entry.size_bytes), headers, services.downloads)
    headers["Content-Range"] = f"bytes {span.first}-{span.end - 1}/{file.entry.size_bytes}"
    return Download(file, span, headers, services.downloads, status=206)


@router.get(
    "/runs/{run_id}/annotations",
    summary="List what a run's steps remarked",
    responses={200: {"model": models.AnnotationList}},
)
async def list_annotations(
    request: Request,
    run_id: str,
    *,
    level: Annotated[Literal["error", "warning", "notice"] | None, Query()] = None,
) -> Response:
    """Of each job's live attempt; `step` is the number of the step that made it."""
    values = {"run_id": run_id, "level": level}
    text = await services_of(request).queries.text("run_annotations", values=values)
    return found(text, f"run {run_id}")


@router.get(
    "/jobs/{job_id}/attempts/{attempt}/groups",
    summary="List the groups of a log",
    responses={200: {"model": models.GroupList}},
)
async def list_groups(
    request: Request,
    job_id: str,
    attempt: int,
    *,
    step: Annotated[int | None, Query(description="Only of this step.")] = None,
) -> Response:
    """Of the steps that ended. `first_line` is the title's, counted from 0; groups are flat."""
    values = {"job_id": job_id, "attempt": attempt, "step": step}
    text = await services_of(request).queries.text("attempt_groups", values=values)
    return found(text, f"attempt {attempt} of the job {job_id}")
