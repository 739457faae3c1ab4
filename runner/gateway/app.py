"""The gateway's HTTP: what an attempt may ask for, over loopback, with the runner token."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from infra.auth import TokenFile
from infra.clock import Clock
from infra.health import metrics_page
from infra.log import Append, LogError, LogWriter
from infra.metrics import SECRETS_RELEASED, Meters
from infra.objects import ObjectStore
from infra.vault import VaultAwayError, VaultError
from runner.gateway.follower import Follower
from runner.gateway.leases import Lease, Token
from runner.gateway.release import NAMES_MAX, SecretSource, release, released, shown
from runner.gateway.shelf import Limits
from schemas.topics import cell_of

logger = logging.getLogger(__name__)

WAIT_MS_MAX = 1_000
ACK_MS_MAX = 5_000
_NAME_CHARACTERS_MAX = 300
_SHA256 = re.compile(r"[0-9a-f]{64}")


class AttemptRequest(BaseModel):
    """Who asks, and how far the fold must be to know."""

    job_id: str = Field(max_length=_NAME_CHARACTERS_MAX)
    attempt: int = Field(ge=1)
    runner_id: str = Field(max_length=_NAME_CHARACTERS_MAX)
    boot_id: str = Field(max_length=_NAME_CHARACTERS_MAX)
    position: int = Field(ge=-1)


class SecretsRequest(AttemptRequest):
    """Who asks, and for what."""

    names: list[Annotated[str, Field(max_length=_NAME_CHARACTERS_MAX)]] = Field(
        max_length=NAMES_MAX
    )


class ProblemError(Exception):
    """An answer that is not the wanted one, as RFC 9457 has it."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        """Answer `status`."""
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail


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


def make_app(means: Means) -> FastAPI:
    """Return the application."""
    numbers = itertools.count()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        means.follower.start()
        yield
        await asyncio.to_thread(means.on_close)

    app = FastAPI(title="Tailrace gateway", lifespan=lifespan, docs_url=None, redoc_url=None)

    def runner_only(authorization: Annotated[str | None, Header()] = None) -> None:
        if not means.token.accepts(authorization):
            raise ProblemError(401, "Unauthorized", "the runner token is missing or wrong")

    _add_problems(app)

    @app.post("/v1/secrets", dependencies=[Depends(runner_only)])
    async def secrets(body: SecretsRequest) -> JSONResponse:
        lease = await asyncio.to_thread(live_lease, means, body)
        names = tuple(body.names)
        return await asyncio.to_thread(_answer, means, lease, names, next(numbers))

    @app.get("/v1/payloads/{sha256}", dependencies=[Depends(runner_only)])
    async def payload(sha256: str) -> Response:
        if not _SHA256.fullmatch(sha256):
            raise ProblemError(404, "Not found", "a payload is named by its sha256")
        data = await asyncio.to_thread(_payload, means, sha256)
        return Response(data, media_type="application/json")

    from runner.gateway.routes_depot import add_depot

    add_depot(app, means, Depends(runner_only))
    _add_health(app, means)
    return app


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> JSONResponse:
        return JSONResponse(
            {
                "type": "about:blank",
                "title": error.title,
                "status": error.status,
                "detail": error.detail,
            },
            status_code=error.status,
            media_type="application/problem+json",
        )

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return await problem(request, ProblemError(400, "Bad request", f"{where}: {first['msg']}"))


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


def live_lease(means: Means, body: AttemptRequest) -> Lease:
    """Return the live lease of who asks. Raises ProblemError."""
    if means.follower.failed is not None:
        raise ProblemError(503, "Unavailable", "the gateway can't follow the log; see its own log")
    token = Token(body.job_id, body.attempt, body.runner_id, body.boot_id)
    for partition in range(means.cells):
        # one cell is the rule; of several, the one that knows the lease answers
        last = partition == means.cells - 1
        lease = means.follower.lease(
            token,
            partition=partition,
            position=body.position if means.cells == 1 else -1,
            timeout_ms=WAIT_MS_MAX if last else 0,
        )
        if lease is not None:
            return lease
    means.meters.count(SECRETS_RELEASED, "not_live")
    raise ProblemError(
        409, "Not the live attempt",
        f"attempt {body.attempt} of {body.job_id} on this boot is not the live one",
    )  # fmt: skip


def _answer(means: Means, lease: Lease, names: tuple[str, ...], number: int) -> JSONResponse:
    try:
        answer = release(means.source, lease, names)
    except VaultAwayError as error:
        raise ProblemError(503, "Vault away", str(error)) from error
    except VaultError as error:
        logger.exception("the vault failed")
        raise ProblemError(500, "Vault failed", str(error)) from error
    record = released(answer, lease, means.clock, number=number)
    # no secret leaves before the fact that it did is durable
    try:
        append_fact(means, replace(record, partition=cell_of(lease.repository, means.cells)))
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


def append_fact(means: Means, record: Append) -> None:
    """Append a fact and wait until it is durable. Raises LogError."""
    means.writer.append_all([record], timeout_ms=ACK_MS_MAX)


def _payload(means: Means, sha256: str) -> bytes:
    key = f"payloads/{sha256}"
    if not means.objects.exists(key):
        raise ProblemError(404, "Not found", f"no payload {sha256} is kept")
    return bytes(means.objects.get(key))
