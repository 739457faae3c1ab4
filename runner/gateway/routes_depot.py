"""Artifacts and caches over HTTP: for live attempts, as everything of the gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from infra.log import LogError
from runner.depot import DepotError, Entry, Kept
from runner.gateway.app import Means, append_fact
from runner.gateway.door import Door
from runner.gateway.leases import Lease
from runner.gateway.problems import ProblemError, read
from runner.gateway.release import about_attempt
from runner.gateway.shelf import NAME_CHARACTERS_MAX, PIECES_MAX, Owner, Shelf, TakenError
from schemas.codec import event_id
from schemas.events import ArtifactUploaded

logger = logging.getLogger(__name__)

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


def add_depot(app: FastAPI, means: Means, door: Door) -> None:
    """Add the routes; `door` lets only live attempts in."""
    shelf = Shelf(means.objects, means.clock, means.limits)
    _add_pieces(app, shelf, door)
    _add_artifacts(app, shelf, door, means)
    _add_caches(app, shelf, door)


def _add_pieces(app: FastAPI, shelf: Shelf, door: Door) -> None:
    @app.put("/v1/pieces")
    async def put_piece(request: Request) -> JSONResponse:
        entered = await door(request)
        data = entered.body
        name = await _told(lambda lease: shelf.put_piece(_owner(lease), data), entered.lease)
        return JSONResponse({"piece": name}, 201)

    @app.post("/v1/pieces/find")
    async def find_piece(request: Request) -> JSONResponse:
        entered = await door(request)
        sha256 = read(PieceRequest, entered.body).sha256
        name = await _told(lambda lease: shelf.find_piece(_owner(lease), sha256), entered.lease)
        return JSONResponse({"piece": name})

    @app.get("/v1/pieces/{name}")
    async def get_piece(request: Request, name: str) -> Response:
        entered = await door(request)
        data = await _told(lambda lease: shelf.get_piece(_owner(lease), name), entered.lease)
        return Response(data, media_type="application/octet-stream")


def _add_artifacts(app: FastAPI, shelf: Shelf, door: Door, means: Means) -> None:
    @app.post("/v1/artifacts")
    async def save_artifact(request: Request) -> JSONResponse:
        entered = await door(request)
        body = read(ArtifactRequest, entered.body)

        def save(lease: Lease) -> Kept:
            kept = shelf.save_artifact(
                _owner(lease),
                _plain(body),
                overwrite=body.overwrite,
                retention_days=body.retention_days,
            )
            try:
                append_fact(means, uploaded(kept.entry, lease))
            except LogError as error:
                # the same request again finds the artifact kept, and records it
                detail = f"the artifact can't be recorded: {error}"
                raise ProblemError(503, "Log away", detail) from error
            return kept

        kept = await _told(save, entered.lease)
        url = f"{means.public_url}/api/v1/artifacts/{kept.entry.artifact_id}/zip"
        return JSONResponse({**kept.entry.to_json(), "note": kept.note, "url": url}, 201)

    @app.get("/v1/artifacts")
    async def artifacts(request: Request) -> JSONResponse:
        entered = await door(request)
        found = await _told(lambda lease: shelf.artifacts(_owner(lease)), entered.lease)
        return JSONResponse({"items": [entry.to_json() for entry in found]})


def _add_caches(app: FastAPI, shelf: Shelf, door: Door) -> None:
    @app.post("/v1/caches")
    async def save_cache(request: Request) -> JSONResponse:
        entered = await door(request)
        body = read(CacheRequest, entered.body)
        saved = await _told(
            lambda lease: shelf.save_cache(
                _owner(lease), _plain(body), version=body.version, scope=body.scope
            ),
            entered.lease,
        )
        return JSONResponse({"saved": saved.saved, "note": saved.note}, 201 if saved.saved else 200)

    @app.post("/v1/caches/find")
    async def find_cache(request: Request) -> JSONResponse:
        entered = await door(request)
        body = read(FindRequest, entered.body)
        found = await _told(
            lambda lease: shelf.find_cache(
                _owner(lease), body.keys, version=body.version, scopes=body.scopes
            ),
            entered.lease,
        )
        return JSONResponse({"cache": found.to_json() if found is not None else None})


async def _told(what: Callable[[Lease], T], lease: Lease) -> T:
    """Return `what` of the lease, made in a thread; ProblemError when it fails."""
    return await asyncio.to_thread(_made, what, lease)


def _made(what: Callable[[Lease], T], lease: Lease) -> T:
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
        ref=lease.ref,
    )


def uploaded(kept: Entry, lease: Lease) -> ArtifactUploaded:
    """Return the fact of an artifact; the same one for a request that is repeated."""
    token = lease.token
    return ArtifactUploaded(
        event_id=event_id(
            "ArtifactUploaded", token.job_id, token.attempt, token.boot_id, kept.artifact_id
        ),
        occurred_at=kept.created_at,
        **about_attempt(lease),
        name=kept.name,
        size_bytes=kept.size_bytes,
        sha256=kept.sha256,
        uri=kept.uri,
        files=kept.files,
        artifact_id=kept.artifact_id,
        expires_at=kept.expires_at,
    )
