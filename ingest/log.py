"""Appending events from the event loop: the only place where ingest waits for the broker.

librdkafka calls back from a thread of its own. Acknowledgements are collected and the loop is
woken once for all that came together; waking it for each costs more than the rest of a request.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

from infra.log import Append, LogWriter
from schemas.codec import EVENTS, event_headers
from schemas.events import Event
from schemas.topics import EVENTS as EVENTS_TOPIC
from schemas.topics import cell_of

SOURCE = "tailrace/ingest"
ACK_TIMEOUT_MS = 5_000
#: Events in flight from which on batching pays.
BUSY_EVENTS_MIN = 4


class NotAcknowledgedError(Exception):
    """The broker did not confirm the event in time; it may be in the log all the same.

    Asking again is safe: the event's id derives from what it is about.
    """


def to_append(event: Event, cells: int, source: str = SOURCE) -> Append:
    """Return the record of an event, in its repository's cell."""
    return Append(
        EVENTS_TOPIC,
        cell_of(event.repository, cells),
        event.repository.encode(),
        EVENTS.encode(event),
        event_headers(event, source=source, occurred_at=event.occurred_at),
    )


class EventLog:
    """Appends events and waits, without blocking the loop, until they are durable."""

    def __init__(
        self, writer: LogWriter, *, cells: int, batching_writer: LogWriter | None = None
    ) -> None:
        """Write through `writer`; use it from one event loop.

        `batching_writer` lingers for company: it takes over while many wait anyway, which
        spares a request to the broker for each. Events that wait side by side have no order.
        """
        self._writer = writer
        self._batching_writer = batching_writer or writer
        self._waiting = 0
        self._cells = cells
        self._lock = threading.Lock()
        self._everywhere = asyncio.Lock()
        self._last_everywhere = 0
        self._acks: list[tuple[asyncio.Future[int], int, Exception | None]] = []

    async def append_everywhere(self, event: Event) -> int:
        """Append an event to every cell, in order; return its offset in the last one.

        One at a time: every cell has them in the same order. The time of each is above that of
        the one before, so that folds can tell a record that a cell got late from a newer one.
        After NotAcknowledgedError some cells may have it: it is to be sent again.
        """
        async with self._everywhere:
            self._last_everywhere = max(event.occurred_at, self._last_everywhere + 1)
            event = replace(event, occurred_at=self._last_everywhere)
            offset = -1
            for cell in range(self._cells):
                offset = await self.append(event, cell=cell)
            return offset

    async def append(
        self, event: Event, *, timeout_ms: int = ACK_TIMEOUT_MS, cell: int | None = None
    ) -> int:
        """Append an event and return its offset; NotAcknowledgedError after `timeout_ms`.

        It goes to the cell of its repository unless `cell` names one.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        def stored(offset: int, error: Exception | None) -> None:
            with self._lock:
                self._acks.append((future, offset, error))
                first = len(self._acks) == 1
            if first and not loop.is_closed():
                loop.call_soon_threadsafe(self._settle)

        writer = self._writer if self._waiting < BUSY_EVENTS_MIN else self._batching_writer
        try:
            record = to_append(event, self._cells)
            if cell is not None:
                record = replace(record, partition=cell)
            writer.append_at(record, stored)
        except BufferError as error:
            raise NotAcknowledgedError("too many events wait for the broker") from error
        timer = loop.call_later(timeout_ms / 1000, _give_up, future, timeout_ms)
        self._waiting += 1
        try:
            return await future
        finally:
            self._waiting -= 1
            timer.cancel()

    def _settle(self) -> None:
        with self._lock:
            acks, self._acks = self._acks, []
        for future, offset, error in acks:
            if future.done():
                continue
            if error is None:
                future.set_result(offset)
            else:
                future.set_exception(NotAcknowledgedError(str(error)))


def _give_up(future: asyncio.Future[int], timeout_ms: int) -> None:
    if not future.done():
        future.set_exception(
            NotAcknowledgedError(f"the broker did not acknowledge within {timeout_ms} ms")
        )
