"""Artifacts and caches over HTTP: for live attempts, as everything of the gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, ValidationError

from infra.log import Append, LogError
from runner.depot import PIECE_BYTES, DepotError, Entry, Kept
from runner.gateway.app import AttemptRequest, Means, ProblemError, append_fact, live_lease
from runner.gateway.leases import Lease
from runner.gateway.release import SOURCE
from runner.gateway.shelf import NAME_CHARACTERS_MAX, PIECES_MAX, Owner, Shelf, TakenError
from schemas import topics
from schemas.codec import EVENTS, event_headers, event_id
from schemas.events import ArtifactUploaded
from schemas.topics import cell_of

logger = logging.getLogger(__name__)

ATTEMPT_HEADER = "Tailrace-Attempt"
_KEYS_MAX = 64
T = TypeVar("T")
Text = Annotated[str, Field(max_length=NAME_CHARACTERS_MAX)]


class EntryBody(BaseModel):
    """A file that lies in pieces."""

    name: Text
    size_bytes: int = Field(ge=0)
    sha256: Text
    pieces: list[Text] = Field(max_length=PIECES_MAX)
    files: int = Field(default=0, ge=0)
    upload_id: Text = ""


class PieceRequest(BaseModel):
    """A piece that may be there already."""

    sha256: Text


class ArtifactRequest(EntryBody):
    """An artifact to keep."""

    overwrite: bool = False
    retention_days: int = Field(default=0, ge=0)


class CacheRequest(EntryBody):
    """A cache to keep."""

    version: Text
    scope: Text


class FindRequest(BaseModel):
    """A cache to look for."""

    keys: list[Text] = Field(max_length=_KEYS_MAX)
    version: Text
    scopes: list[Text] = Field(max_length=_KEYS_MAX)


Who = Annotated[str, Header(alias=ATTEMPT_HEADER)]


class Asked:
    """Answers for live attempts."""

    def __init__(self, means: Means) -> None:
        """Use the gateway's own fold."""
        self._means = means

    async def __call__(self, attempt_json: str, what: Callable[[Lease], T]) -> T:
        """Return `what` of the attempt's lease; ProblemError when it has none, or it fails."""
        lease = await asyncio.to_thread(live_lease, self._means, _attempt(attempt_json))
        return await asyncio.to_thread(_told, what, lease)


def add_depot(app: FastAPI, means: Means, guard: Any) -> None:
    """Add the routes; `guard` is the dependency that lets only runners through."""
    shelf, asked = Shelf(means.objects, means.clock, means.limits), Asked(means)
    _add_pieces(app, shelf, asked, [guard])
    _add_artifacts(app, shelf, asked, [guard], means)
    _add_caches(app, shelf, asked, [guard])


def _add_pieces(app: FastAPI, shelf: Shelf, asked: Asked, guards: list[Any]) -> None:
    @app.put("/v1/pieces", dependencies=guards)
    async def put_piece(request: Request, who: Who) -> JSONResponse:
        size = request.headers.get("content-length", "")
        if not size.isdigit() or int(size) > PIECE_BYTES:
            raise ProblemError(413, "Too large", f"a piece has {PIECE_BYTES} bytes at most")
        data = await request.body()
        name = await asked(who, lambda lease: shelf.put_piece(_owner(lease), data))
        return JSONResponse({"piece": name}, 201)

    @app.post("/v1/pieces/find", dependencies=guards)
    async def find_piece(body: PieceRequest, who: Who) -> JSONResponse:
        name = await asked(who, lambda lease: shelf.find_piece(_owner(lease), body.sha256))
        return JSONResponse({"piece": name})

    @app.get("/v1/pieces/{name}", dependencies=guards)
    async def get_piece(name: str, who: Who) -> Response:
        data = await asked(who, lambda lease: shelf.get_piece(_owner(lease), name))
        return Response(data, media_type="application/octet-stream")


def _add_artifacts(
    app: FastAPI, shelf: Shelf, asked: Asked, guards: list[Any], means: Means
) -> None:
    @app.post("/v1/artifacts", dependencies=guards)
    async def save_artifact(body: ArtifactRequest, who: Who) -> JSONResponse:
        def save(lease: Lease) -> Kept:
            kept = shelf.save_artifact(
                _owner(lease),
                _plain(body),
                overwrite=body.overwrite,
                retention_days=body.retention_days,
            )
            record = uploaded(kept.entry, lease)
            try:
                append_fact(
                    means, replace(record, partition=cell_of(lease.repository, means.cells))
                )
            except LogError as error:
                raise DepotError(f"the artifact can't be recorded: {error}") from error
            return kept

        kept = await asked(who, save)
        url = f"{means.public_url}/api/v1/artifacts/{kept.entry.artifact_id}/zip"
        return JSONResponse({**kept.entry.to_json(), "note": kept.note, "url": url}, 201)

    @app.get("/v1/artifacts", dependencies=guards)
    async def artifacts(who: Who) -> JSONResponse:
        found = await asked(who, lambda lease: shelf.artifacts(_owner(lease)))
        return JSONResponse({"items": [entry.to_json() for entry in found]})


def _add_caches(app: FastAPI, shelf: Shelf, asked: Asked, guards: list[Any]) -> None:
    @app.post("/v1/caches", dependencies=guards)
    async def save_cache(body: CacheRequest, who: Who) -> JSONResponse:
        saved = await asked(
            who,
            lambda lease: shelf.save_cache(
                _owner(lease), _plain(body), version=body.version, scope=body.scope
            ),
        )
        return JSONResponse({"saved": saved.saved, "note": saved.note}, 201 if saved.saved else 200)

    @app.post("/v1/caches/find", dependencies=guards)
    async def find_cache(body: FindRequest, who: Who) -> JSONResponse:
        found = await asked(
            who,
            lambda lease: shelf.find_cache(
                _owner(lease), body.keys, version=body.version, scopes=body.scopes
            ),
        )
        return JSONResponse({"cache": found.to_json() if found is not None else None})


def _attempt(text: str) -> AttemptRequest:
    try:
        return AttemptRequest.model_validate_json(text)
    except ValidationError as error:
        raise ProblemError(400, "Bad request", f"{ATTEMPT_HEADER}: {error}") from error


def _told(what: Callable[[Lease], T], lease: Lease) -> T:
    try:
        return what(lease)
    except TakenError as error:
        raise ProblemError(409, "Name taken", str(error)) from error
    except DepotError as error:
        logger.warning("depot: %s", error, extra={"job_id": lease.token.job_id})
        raise ProblemError(422, "Not kept", str(error)) from error


def _plain(body: EntryBody) -> Entry:
    return Entry(
        name=body.name,
        size_bytes=body.size_bytes,
        sha256=body.sha256,
        pieces=tuple(body.pieces),
        files=body.files,
        upload_id=body.upload_id,
    )


def _owner(lease: Lease) -> Owner:
    return Owner(
        repository=lease.repository,
        run_id=lease.run_id,
        job_id=lease.token.job_id,
        attempt=lease.token.attempt,
        fork=lease.fork,
    )


def uploaded(kept: Entry, lease: Lease) -> Append:
    """Return the fact of an artifact; the same one for a request that is repeated."""
    token, now_ms = lease.token, kept.created_at
    event = ArtifactUploaded(
        event_id=event_id(
            "ArtifactUploaded", token.job_id, token.attempt, token.boot_id, kept.artifact_id
        ),
        occurred_at=now_ms,
        repository=lease.repository,
        run_id=lease.run_id,
        caused_by=lease.cause,
        delivery_id=lease.delivery_id,
        job_id=token.job_id,
        attempt=token.attempt,
        runner_id=token.runner_id,
        boot_id=token.boot_id,
        name=kept.name,
        size_bytes=kept.size_bytes,
        sha256=kept.sha256,
        uri=kept.uri,
        files=kept.files,
        artifact_id=kept.artifact_id,
        expires_at=kept.expires_at,
    )
    return Append(
        topics.EVENTS,
        0,
        lease.repository.encode(),
        EVENTS.encode(event),
        event_headers(event, source=SOURCE, occurred_at=now_ms),
    )
