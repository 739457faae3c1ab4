"""The gateway's HTTP: what an attempt may ask for, over loopback, signed by its runner's boot."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import field
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from infra.auth import TokenFile
from infra.clock import Clock
from infra.health import metrics_page
from infra.log import Append, LogError, LogWriter
from infra.metrics import SECRETS_RELEASED, Meters
from infra.objects import ObjectStore
from infra.vault import VaultAwayError, VaultError
from runner.gateway.door import WAIT_MS_MAX, Door
from runner.gateway.follower import Follower
from runner.gateway.leases import Lease
from runner.gateway.problems import ProblemError, add_problems, read
from runner.gateway.release import NAMES_MAX, SOURCE, SecretSource, release, released, shown
from runner.gateway.shelf import Limits
from schemas import topics
from schemas.codec import EVENTS, event_headers
from schemas.events import Event
from schemas.late import dataclass

logger = logging.getLogger(__name__)

ACK_MS_MAX = 5_000
_NAME_CHARACTERS_MAX = 300
_SHA256 = re.compile(r"[0-9a-f]{64}")


class SecretsRequest(BaseModel):
    """What is asked for."""

    names: list[Annotated[str, Field(max_length=_NAME_CHARACTERS_MAX)]] = Field(
        max_length=NAMES_MAX
    )


@dataclass(frozen=True, slots=True)
class Means:
    """What the gateway works with."""

    follower: Follower
    source: SecretSource
    objects: ObjectStore
    writer: LogWriter
    token: TokenFile
    clock: Clock
    meters: Meters
    cells: int
    on_close: Callable[[], None]
    limits: Limits = field(default_factory=Limits)
    public_url: str = ""
    #: How long a request waits for the fold to read what it names.
    wait_ms: int = WAIT_MS_MAX


def make_app(means: Means) -> FastAPI:
    """Return the application."""
    numbers = itertools.count()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        means.follower.start()
        yield
        await asyncio.to_thread(means.on_close)

    app = FastAPI(title="Tailrace gateway", lifespan=lifespan, docs_url=None, redoc_url=None)

    door = Door(
        means.follower,
        means.token,
        means.clock,
        means.meters,
        cells=means.cells,
        wait_ms=means.wait_ms,
    )
    add_problems(app)

    @app.post("/v1/secrets")
    async def secrets(request: Request) -> JSONResponse:
        entered = await door(request)
        names = tuple(read(SecretsRequest, entered.body).names)
        return await asyncio.to_thread(_answer, means, entered.lease, names, next(numbers))

    @app.get("/v1/payloads/{sha256}")
    async def payload(request: Request, sha256: str) -> Response:
        await door(request)
        if not _SHA256.fullmatch(sha256):
            raise ProblemError(404, "Not found", "a payload is named by its sha256")
        data = await asyncio.to_thread(_payload, means, sha256)
        return Response(data, media_type="application/json")

    from runner.gateway.routes_depot import add_depot

    add_depot(app, means, door)
    _add_health(app, means)
    return app


def _add_health(app: FastAPI, means: Means) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "service": "gateway"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        found = readiness(means)
        return JSONResponse(found, status_code=200 if found["status"] == "ok" else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        body, content_type = metrics_page()
        return Response(body, media_type=content_type)


def readiness(means: Means) -> dict[str, Any]:
    """Return what /readyz says."""
    follower = means.follower
    status = "ok" if follower.caught_up else "starting"
    if follower.failed is not None:
        status = "degraded"
    return {"service": "gateway", "status": status, "lag": follower.lag()}


def _answer(means: Means, lease: Lease, names: tuple[str, ...], number: int) -> JSONResponse:
    try:
        answer = release(means.source, lease, names)
    except VaultAwayError as error:
        raise ProblemError(503, "Vault away", str(error)) from error
    except VaultError as error:
        logger.exception("the vault failed")
        raise ProblemError(500, "Vault failed", str(error)) from error
    # no secret leaves before the fact that it did is durable
    try:
        append_fact(means, released(answer, lease, means.clock, number=number))
    except LogError as error:
        raise ProblemError(503, "Log away", f"the release can't be recorded: {error}") from error
    means.meters.count(SECRETS_RELEASED, "released" if answer.secrets else "refused")
    logger.info(
        "released %s, refused %s", shown(answer.secrets), shown(answer.refused),
        extra={"job_id": lease.token.job_id, "attempt": lease.token.attempt},
    )  # fmt: skip
    return JSONResponse(
        {"secrets": answer.secrets, "refused": answer.refused},
        headers={"Cache-Control": "no-store"},
    )


def append_fact(means: Means, event: Event) -> None:
    """Append a fact to its repository's cell and wait until it is durable. Raises LogError."""
    record = Append(
        topics.EVENTS,
        topics.cell_of(event.repository, means.cells),
        event.repository.encode(),
        EVENTS.encode(event),
        event_headers(event, source=SOURCE, occurred_at=event.occurred_at),
    )
    means.writer.append_all([record], timeout_ms=ACK_MS_MAX)


def _payload(means: Means, sha256: str) -> bytes:
    key = f"payloads/{sha256}"
    if not means.objects.exists(key):
        raise ProblemError(404, "Not found", f"no payload {sha256} is kept")
    return bytes(means.objects.get(key))
