"""The projector's loop: records of `events` in, rows and position out, one transaction a batch.

Two copies side by side are safe: a position moves by compare-and-set inside the transaction that
writes the rows; the loser rolls back, reads the position again and goes on from there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import psycopg

from infra import metrics
from infra.clock import Clock
from infra.log import Append, LogReader, LogWriter, Record
from infra.metrics import Meters
from infra.postgres import Connection
from projector import store
from projector.rows import UnfoldableError, WorkingSet, check, missing, project
from schemas.codec import EVENTS as EVENT_CODEC
from schemas.codec import CodecError, UnknownSchemaError
from schemas.events import Event
from schemas.topics import DEAD_LETTERS, EVENTS

logger = logging.getLogger(__name__)

POLL_TIMEOUT_MS = 500
BATCH_RECORDS_MAX = 2_000
BATCH_BYTES_MAX = 16 * 1024 * 1024
ROWS_AT_HAND_MAX = 50_000
OVERLAP_FROM = 500
#: Between such turns it rests: a transaction costs far more than one more row in it, and of a
#: stream of events nobody sees each row by itself. One job's few events are never held up.
PACE_FROM = 10
PACE_MS = 50
RETRY_MIN_MS = 50
RETRY_MAX_MS = 2_000
APPEND_TIMEOUT_MS = 30_000


class SeekableReader(LogReader, Protocol):
    """A reader that can go on from elsewhere."""

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Go on from another offset of an assigned partition."""
        ...


@dataclass(slots=True)
class Cell:
    """What the projector knows of one partition of `events`."""

    number: int
    next_offset: int = 0
    rows: WorkingSet = field(default_factory=WorkingSet)
    held: str = ""


class Projector:
    """Folds `events` into the read models until it is told to stop."""

    def __init__(
        self,
        *,
        connect: Callable[[], Connection],
        reader: SeekableReader,
        dead_letters: LogWriter,
        topic_id: str,
        cells: int,
        clock: Clock,
        meters: Meters,
        topic: str = EVENTS,
        dead_letter_topic: str = DEAD_LETTERS,
        batch_records_max: int = BATCH_RECORDS_MAX,
    ) -> None:
        """Wire it; nothing is read before `run`. `topic_id` is the broker's id of the topic."""
        self._connect = connect
        self._connection: Connection | None = None
        self._reader = reader
        self._dead_letters = dead_letters
        self._topic_id = topic_id
        self._clock = clock
        self._meters = meters
        self._topic = topic
        self._dead_letter_topic = dead_letter_topic
        self._batch_records_max = batch_records_max
        self.cells = [Cell(number) for number in range(cells)]
        self.trouble = "starting"
        # a big batch is written while the next one is decoded: a rebuild is a fifth faster
        self._background = ThreadPoolExecutor(1, thread_name_prefix="projector-write")
        self._writing: tuple[Cell, Future[int]] | None = None

    # ----------------------------------------------------------------------- state for readers

    def readiness(self) -> dict[str, object]:
        """Return what `/readyz` shows."""
        held = {cell.number: cell.held for cell in self.cells if cell.held}
        status = "ok"
        if self.trouble:
            status = "starting" if self.trouble == "starting" else "degraded"
        elif held:
            status = "degraded"
        return {"status": status, "trouble": self.trouble, "held": held,
                "next_offsets": {cell.number: cell.next_offset for cell in self.cells}}  # fmt: skip

    # ----------------------------------------------------------------------- the loop

    def run(self, stop: threading.Event) -> None:
        """Fold until `stop` is set; waits out a database that is away."""
        try:
            self._run(stop)
        finally:
            self._drop_connection()
            self._background.shutdown()

    def _run(self, stop: threading.Event) -> None:
        pause_ms = RETRY_MIN_MS
        while not stop.is_set():
            try:
                if self._connection is None:
                    self._open()
                if PACE_FROM <= self.turn() < OVERLAP_FROM:
                    stop.wait(PACE_MS / 1000)
                pause_ms = RETRY_MIN_MS
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self.trouble = f"PostgreSQL does not answer: {str(error).strip()}"
                logger.warning("%s; trying again", self.trouble)
                self._drop_connection()
                stop.wait(pause_ms / 1000)
                pause_ms = min(pause_ms * 2, RETRY_MAX_MS)

    def turn(self) -> int:
        """Read what is there and project it; returns how many records that were."""
        timeout_ms = POLL_TIMEOUT_MS if self._writing is None else 0
        records = self._reader.read(timeout_ms=timeout_ms, records_max=self._batch_records_max)
        if not records:
            self._await_write()
        ordered = sorted(records, key=lambda record: (record.partition, record.offset))
        for number, group in groupby(ordered, key=lambda record: record.partition):
            self._project_partition(self.cells[number], list(group))
        return len(records)

    def _open(self) -> None:
        self._connection = self._connect()
        self._connection.prepare_threshold = 2
        for cell in self.cells:
            self._read_position(cell)
        self._reader.assign(
            {(self._topic, cell.number): cell.next_offset for cell in self.cells if not cell.held}
        )
        self.trouble = ""

    def _drop_connection(self) -> None:
        if self._writing is not None:
            # whatever came of it: the position says so when it is read again
            self._writing[1].exception()
            self._writing = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read_position(self, cell: Cell) -> None:
        cell.rows = WorkingSet()
        cell.next_offset = store.position(self._opened(), EVENTS, cell.number, self._topic_id)

    def _opened(self) -> Connection:
        if self._connection is None:
            raise psycopg.InterfaceError("not connected")
        return self._connection

    # ----------------------------------------------------------------------- one partition

    def _project_partition(self, cell: Cell, records: Sequence[Record]) -> None:
        for batch in _split(records):
            fresh = [record for record in batch if record.offset >= cell.next_offset]
            if not fresh or cell.held:
                continue
            try:
                self._project_batch(cell, fresh)
            except store.PositionLostError:
                self._go_on_behind(cell)
                return

    def _go_on_behind(self, cell: Cell) -> None:
        self._read_position(cell)
        logger.info("another projector went ahead; going on from offset %d", cell.next_offset)
        self._reader.seek(self._topic, cell.number, cell.next_offset)

    def _project_batch(self, cell: Cell, batch: Sequence[Record]) -> None:
        began_ms = self._clock.steady_ms()
        events, next_offset = self._decode(cell, batch)
        if next_offset == cell.next_offset:
            return
        if self._await_write() is cell:
            raise store.PositionLostError("the batch before this one was written by another")
        if cell.rows.size() > ROWS_AT_HAND_MAX:
            cell.rows = WorkingSet()
        rows = cell.rows
        rows.start_batch()
        needed = {need: None for _, event in events for need in missing(rows, event)}
        store.load(self._opened(), rows, needed)
        for record, event in events:
            project(rows, event, cell.number, record.offset)
        step = store.Advance(
            topic=EVENTS,
            partition=cell.number,
            expected=cell.next_offset,
            next_offset=next_offset,
        )
        cell.next_offset = next_offset
        if len(batch) >= OVERLAP_FROM:
            written = self._background.submit(store.write, self._opened(), rows, step, cell.number)
            self._writing = (cell, written)
        else:
            self._write(cell, step)
        self._measure(len(batch), sum(map(len, rows.changed.values())), began_ms)

    def _write(self, cell: Cell, step: store.Advance) -> None:
        try:
            store.write(self._opened(), cell.rows, step, cell.number)
        except BaseException:
            # the rows at hand are ahead of the tables now
            cell.rows = WorkingSet()
            raise

    def _await_write(self) -> Cell | None:
        """Wait for the write in the background; returns the cell whose position it lost."""
        if self._writing is None:
            return None
        (cell, written), self._writing = self._writing, None
        try:
            written.result()
        except store.PositionLostError:
            self._go_on_behind(cell)
            return cell
        except BaseException:
            cell.rows = WorkingSet()
            raise
        return None

    def _measure(self, records: int, written: int, began_ms: int) -> None:
        self._meters.count(metrics.EVENTS_READ, self._topic, by=records)
        self._meters.count(metrics.ROWS_WRITTEN, "all", by=written)
        self._meters.observe(metrics.PROJECT_SECONDS, (self._clock.steady_ms() - began_ms) / 1000)

    def _decode(
        self, cell: Cell, batch: Sequence[Record]
    ) -> tuple[list[tuple[Record, Event]], int]:
        """Return the batch's events and the offset to go on from; sets aside what is damaged."""
        events: list[tuple[Record, Event]] = []
        damaged: list[Append] = []
        next_offset = cell.next_offset
        for record in batch:
            try:
                event = EVENT_CODEC.decode(record.value or b"")
                check(event)
                events.append((record, event))
            except UnknownSchemaError as error:
                self._hold(cell, record, error)
                break
            except (CodecError, UnfoldableError) as error:
                damaged.append(self._dead_letter(record, error))
            next_offset = record.next_offset
        if damaged:
            # acknowledged before the position moves: a kill in between repeats, never loses
            self._dead_letters.append_all(damaged, timeout_ms=APPEND_TIMEOUT_MS)
        return events, next_offset

    def _hold(self, cell: Cell, record: Record, error: UnknownSchemaError) -> None:
        cell.held = f"offset {record.offset}: {error}"
        logger.error(
            "events/%d is held at offset %d: %s",
            cell.number,
            record.offset,
            error,
            extra={"partition": cell.number, "offset": record.offset},
        )

    def _dead_letter(self, record: Record, error: Exception) -> Append:
        logger.error(
            "set aside %s/%d offset %d: %s", record.topic, record.partition, record.offset, error
        )
        self._meters.count(metrics.DEAD_LETTERS, record.topic)
        origin = [
            ("x-origin-topic", record.topic.encode()),
            ("x-origin-partition", str(record.partition).encode()),
            ("x-origin-offset", str(record.offset).encode()),
            ("x-error", str(error)[:1000].encode()),
        ]
        return Append(
            topic=self._dead_letter_topic,
            partition=0,
            key=record.key,
            value=record.value,
            headers=[*record.headers, *origin],
        )


def _split(records: Sequence[Record]) -> list[list[Record]]:
    """Cut a partition's records so that a batch stays within its bytes."""
    batches: list[list[Record]] = [[]]
    size = 0
    for record in records:
        length = len(record.value or b"")
        if batches[-1] and size + length > BATCH_BYTES_MAX:
            batches.append([])
            size = 0
        batches[-1].append(record)
        size += length
    return batches
