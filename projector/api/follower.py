"""Brings `logs` into the event loop: one thread follows it, another reads old places again."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from infra.log import LogError, LogReader
from projector.api.livelogs import LiveLogs
from schemas import codec
from schemas.streams import LogBatch
from schemas.topics import LOGS

logger = logging.getLogger(__name__)

POLL_TIMEOUT_MS = 200
BATCHES_MAX = 200
REFETCH_RECORDS = 64
RETRY_S = 1.0

Accepted = list[tuple[int, int, LogBatch]]


class LogFollower:
    """Feeds a `LiveLogs` from Kafka until it is closed."""

    def __init__(
        self,
        live: LiveLogs,
        make_reader: Callable[[str], LogReader],
        positions: Callable[[LogReader], Mapping[tuple[str, int], int]],
        *,
        topic: str = LOGS,
    ) -> None:
        """`make_reader` opens a reader by a client's name; `positions` says where to begin."""
        self._live = live
        self._make_reader = make_reader
        self._positions = positions
        self._topic = topic
        self._stop = threading.Event()
        self._again = ThreadPoolExecutor(1, thread_name_prefix="logs-again")
        self._again_reader: LogReader | None = None
        self._thread: threading.Thread | None = None
        self.caught_up = threading.Event()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to follow."""
        self._live.fetch = self.fetch
        self._thread = threading.Thread(
            target=self._run, args=(loop,), name="logs-follower", daemon=True
        )
        self._thread.start()

    async def close(self) -> None:
        """Stop and let go of Kafka."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5)
        self._again.shutdown(wait=False, cancel_futures=True)
        if self._again_reader is not None:
            await asyncio.to_thread(self._again_reader.close)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.is_set():
            try:
                reader = self._make_reader("logs")
                try:
                    reader.assign(self._positions(reader))
                    self._follow(reader, loop)
                finally:
                    reader.close()
            except LogError as error:
                logger.warning("live logs wait for Kafka: %s", error)
                self._stop.wait(RETRY_S)

    def _follow(self, reader: LogReader, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stop.is_set():
            records = reader.read(timeout_ms=POLL_TIMEOUT_MS, records_max=BATCHES_MAX)
            if not records:
                self.caught_up.set()
                continue
            accepted: Accepted = []
            for record in records:
                try:
                    batch = codec.LOGS.decode(record.value or b"")
                except codec.CodecError as error:
                    logger.error("logs/%d offset %d: %s", record.partition, record.offset, error)  # noqa: TRY400
                    continue
                if isinstance(batch, LogBatch):
                    accepted.append((record.partition, record.offset, batch))
            self._hand_over(accepted, loop)

    def _hand_over(self, accepted: Accepted, loop: asyncio.AbstractEventLoop) -> None:
        """Give batches to the loop and wait until it took them: a reader never runs ahead."""
        taken = threading.Event()

        def take() -> None:
            try:
                self._live.accept(accepted)
            finally:
                taken.set()

        try:
            loop.call_soon_threadsafe(take)
        except RuntimeError:
            self._stop.set()  # the loop is gone: the process ends
            return
        while not taken.wait(1) and not self._stop.is_set():
            pass

    async def fetch(self, partition: int, offset: int) -> list[tuple[int, LogBatch]]:
        """Read an attempt's batches again from an offset: those of the first record's attempt."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._again, self._fetch, partition, offset)

    def _fetch(self, partition: int, offset: int) -> list[tuple[int, LogBatch]]:
        if self._again_reader is None:
            self._again_reader = self._make_reader("logs-again")
        reader = self._again_reader
        reader.assign({(self._topic, partition): offset})
        found: list[tuple[int, LogBatch]] = []
        owner: tuple[str, int] | None = None
        for _ in range(20):
            records = reader.read(timeout_ms=500, records_max=REFETCH_RECORDS)
            for record in records:
                batch = codec.LOGS.decode(record.value or b"")
                if not isinstance(batch, LogBatch) or record.offset < offset:
                    continue
                owner = owner or (batch.job_id, batch.attempt)
                if (batch.job_id, batch.attempt) == owner:
                    found.append((record.offset, batch))
            if found:
                return found
        return found
