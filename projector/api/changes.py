"""Run changes for everybody who watches: one LISTEN connection, one query a change.

The projector notifies with every commit; what changed is fetched once and given to each watcher,
however many there are. A watcher that does not keep up loses its place and is told to ask again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psycopg

from infra.postgres import connection_settings
from projector import store
from projector.api.problems import ProblemError
from projector.api.queries import Queries

logger = logging.getLogger(__name__)

QUEUE_MAX = 256
CHANGES_MAX = 200
COALESCE_S = 0.02
HEARTBEAT_S = 15.0
HEARTBEAT = b": alive\n\n"
RETRY_S = 1.0


@dataclass(slots=True, eq=False)
class Watcher:
    """One stream; `run_id` limits it to a run, `filters` to what a run list would show."""

    run_id: str | None
    filters: Mapping[str, str]
    events: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(QUEUE_MAX))
    overflowed: bool = False

    def give(self, event: bytes) -> None:
        """Queue an event unless the client is too slow for it."""
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            self.overflowed = True

    def wants(self, run: Mapping[str, Any]) -> bool:
        """Say whether a run passes the filters."""
        for name, value in self.filters.items():
            if name == "branch":
                if run["ref"] != f"refs/heads/{value}" and run["head_ref"] != value:
                    return False
            elif run.get(name) != value:
                return False
        return True


class Changes:
    """Listens to the projector and tells watchers what changed."""

    def __init__(
        self,
        url: str,
        queries: Queries,
        on_notice: Callable[[Mapping[str, Any]], None],
        *,
        schema: str = store.SCHEMA,
    ) -> None:
        """`on_notice` hears every notification first, for instance to drop archived logs."""
        self._url = url
        self._queries = queries
        self._on_notice = on_notice
        self._schema = schema
        self._watchers: set[Watcher] = set()
        self._pending: set[str] = set()
        self._pending_all = False
        self._wake = asyncio.Event()
        self._last_offset = -1
        self._tasks: list[asyncio.Task[None]] = []
        self.listening = False

    @property
    def watchers(self) -> int:
        """How many streams are open."""
        return len(self._watchers)

    def start(self) -> None:
        """Begin to listen."""
        loops: list[Callable[[], Awaitable[None]]] = [self._listen, self._publish]
        self._tasks = [asyncio.ensure_future(loop()) for loop in loops]

    async def close(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    # ----------------------------------------------------------------------- listening

    async def _listen(self) -> None:
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, **connection_settings("api-listen", self._schema)
                )
                async with connection:
                    await connection.execute(f"LISTEN {store.CHANNEL}".encode())
                    self.listening = True
                    # what was committed while nobody listened
                    self._note({"runs": None, "offset": self._last_offset})
                    async for notification in connection.notifies():
                        self._note(msgspec.json.decode(notification.payload))
            except (psycopg.Error, OSError) as error:
                logger.warning("run changes wait for PostgreSQL: %s", error)
            self.listening = False
            await asyncio.sleep(RETRY_S)

    def _note(self, notice: Mapping[str, Any]) -> None:
        self._on_notice(notice)
        if notice["runs"] is None:
            self._pending_all = True
        else:
            self._pending.update(notice["runs"])
        self._wake.set()

    # ----------------------------------------------------------------------- publishing

    async def _publish(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            run_ids, everything = self._pending, self._pending_all
            self._pending, self._pending_all = set(), False
            if not self._watchers:
                continue
            try:
                await self._publish_runs(run_ids, everything=everything)
            except ProblemError as error:
                logger.warning("run changes: %s", error.detail)
                self._pending |= run_ids
                self._pending_all |= everything
                await asyncio.sleep(RETRY_S)
                self._wake.set()
            await asyncio.sleep(COALESCE_S)

    async def _publish_runs(self, run_ids: set[str], *, everything: bool) -> None:
        watched = {watcher.run_id for watcher in self._watchers if watcher.run_id is not None}
        for run_id in watched if everything else watched & run_ids:
            event = await self.event_of_run(run_id)
            for watcher in self._watchers:
                if watcher.run_id == run_id and event is not None:
                    watcher.give(event)
        lists = [watcher for watcher in self._watchers if watcher.run_id is None]
        if not lists:
            return
        if everything:
            page = await self._queries.runs_changed({}, self._last_offset, CHANGES_MAX)
        else:
            page = await self._queries.value(
                "runs_changed",
                where="WHERE run_id = ANY(%(ids)s)",
                values={"ids": list(run_ids), "limit": CHANGES_MAX},
            )
        for run in page["items"]:
            event = encode_run(run)
            for watcher in lists:
                if watcher.wants(run):
                    watcher.give(event)
        self._last_offset = max(self._last_offset, page["as_of"])

    async def event_of_run(self, run_id: str) -> bytes | None:
        """Return the event with a run and its jobs, None when there is no such run."""
        run = await self._queries.value("run", values={"run_id": run_id, "attempt": None})
        return None if run is None else encode_run(run)

    # ----------------------------------------------------------------------- watching

    async def watch(
        self, run_id: str | None, filters: Mapping[str, str], after: int | None
    ) -> AsyncIterator[bytes]:
        """Yield SSE events: first what was missed since offset `after`, then what changes."""
        watcher = Watcher(run_id, filters)
        self._watchers.add(watcher)
        try:
            yield b"retry: 1000\n\n"
            if run_id is not None:
                event = await self.event_of_run(run_id)
                if event is not None:
                    yield event
            elif after is not None:
                page = await self._queries.runs_changed(filters, after, CHANGES_MAX)
                for run in page["items"]:
                    yield encode_run(run)
            while not watcher.overflowed or not watcher.events.empty():
                try:
                    yield await asyncio.wait_for(watcher.events.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield HEARTBEAT
        finally:
            self._watchers.discard(watcher)


def encode_run(run: Mapping[str, Any]) -> bytes:
    """Return the SSE event of a run; its id is the offset at which it changed."""
    data = msgspec.json.encode(run)
    return b"id: %d\nevent: run\ndata: %s\n\n" % (run["changed_offset"], data)
