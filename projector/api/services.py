"""What the routes work with, opened and closed together with the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from infra.auth import TokenFile
from infra.clock import Clock
from infra.log import LogError, LogReader
from infra.metrics import Meters
from infra.objects import ObjectStore
from infra.postgres import connect, make_pool
from projector import store
from projector.api.changes import Changes
from projector.api.follower import LogFollower
from projector.api.livelogs import LiveLogs
from projector.api.logsource import Archive, LogSource
from projector.api.problems import ProblemError
from projector.api.queries import Queries
from projector.api.stored import DOWNLOADS_MAX
from projector.api.upstream import Upstream
from schemas.topics import LOG_PARTITIONS, LOGS

SWEEP_EVERY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """Everything from outside that the API needs."""

    database_url: str
    make_reader: Callable[[str], LogReader]
    objects: ObjectStore
    token: TokenFile
    clock: Clock
    meters: Meters
    public_url: str
    public_port: int
    ingest_url: str
    allow_hosts: tuple[str, ...] = ()
    schema: str = store.SCHEMA
    logs_topic: str = LOGS
    log_partitions: int = LOG_PARTITIONS
    pool_size_max: int = 8


class Services:
    """The parts of a running API."""

    def __init__(self, wiring: Wiring) -> None:
        """Put the parts together; nothing is opened yet."""
        self.wiring = wiring
        self.pool = make_pool(
            wiring.database_url, "api", schema=wiring.schema, size_max=wiring.pool_size_max
        )
        self.queries = Queries(self.pool, origin=wiring.public_url)
        self.live = LiveLogs()
        self.logs = LogSource(self.queries, self.live, Archive(wiring.objects))
        self.changes = Changes(
            wiring.database_url, self.queries, self._noticed, schema=wiring.schema
        )
        self.follower = LogFollower(
            self.live, wiring.make_reader, self._log_positions, topic=wiring.logs_topic
        )
        self.upstream = Upstream(wiring.ingest_url)
        self.streams: dict[str, int] = {}
        self.downloads = asyncio.Semaphore(DOWNLOADS_MAX)
        self.closing = asyncio.Event()
        self._sweep_now = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; a database or broker that is away is waited for in the background."""
        await self.pool.open()
        self.changes.start()
        self._sweeper = asyncio.ensure_future(self._sweep())
        self.follower.start(asyncio.get_running_loop())

    async def close(self) -> None:
        """Let go of everything."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self.changes.close()
        await self.follower.close()
        await self.upstream.close()
        await self.pool.close()

    def _log_positions(self, reader: LogReader) -> Mapping[tuple[str, int], int]:
        """Return where the unarchived part of each partition begins; called by the follower."""
        topic, wiring = self.wiring.logs_topic, self.wiring
        try:
            with connect(wiring.database_url, "api-logs", schema=wiring.schema) as database:
                rows = database.execute(
                    "SELECT partition, next_offset FROM position WHERE topic = %s", (LOGS,)
                ).fetchall()
        except psycopg.Error as error:
            raise LogError(f"the database does not say what is archived: {error}") from error
        stored = dict(rows)
        return {
            (topic, part): max(stored.get(part, 0), reader.bounds(topic, part)[0])
            for part in range(self.wiring.log_partitions)
        }

    def _noticed(self, notice: Mapping[str, Any]) -> None:
        for job_id, attempt in notice.get("archived") or ():
            self.live.forget((job_id, attempt))
        if notice["runs"] is None:
            self._sweep_now.set()
        else:
            self.live.wake_runs(set(notice["runs"]))

    async def _sweep(self) -> None:
        """Drop archived logs whose notification named nobody or never came."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sweep_now.wait(), SWEEP_EVERY_S)
            self._sweep_now.clear()
            keys = self.live.keys()
            with suppress(ProblemError):
                found = await self.queries.value(
                    "archived",
                    values={"jobs": [key[0] for key in keys], "attempts": [key[1] for key in keys]},
                )
                for job_id, attempt in found:
                    self.live.forget((job_id, attempt))
            self.live.wake_all()

    async def readiness(self) -> dict[str, Any]:
        """Return what `/readyz` shows."""
        try:
            positions = await self.queries.value("positions")
        except Exception as error:  # noqa: BLE001 - whatever it is, this process is not ready
            return {"status": "degraded", "trouble": f"database: {error}"}
        if not self.follower.caught_up.is_set():
            return {"status": "starting", "trouble": "reading logs that are not archived yet"}
        if not self.changes.listening:
            return {"status": "starting", "trouble": "not listening for changes yet"}
        return {"status": "ok", "positions": positions}
