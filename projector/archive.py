"""Moves finished logs from `logs` to the object store: the only writer of `LogArchived`.

The position on `logs` is the lowest offset that is not archived yet, so a kill at any point
repeats work and loses none; segments and the event come out the same. Of several copies one holds
a lease and archives, which saves work and is not what correctness rests on.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from infra import metrics
from infra.clock import Clock
from infra.log import Append, LogError, LogReader, LogWriter, Record
from infra.metrics import Meters
from infra.objects import ObjectStore, ObjectStoreError
from infra.postgres import Connection
from projector import store
from projector.segments import Segment, SegmentError, SegmentWriter, decompress, object_key
from schemas import codec, topics
from schemas.events import LogArchived, LogSegment
from schemas.loglines import LogLinesError
from schemas.streams import LogBatch

logger = logging.getLogger(__name__)

POLL_TIMEOUT_MS = 250
BATCHES_MAX = 500
SETTLE_EVERY_MS = 500
LEASE_S = 10
GRACE_FINISHED_MS = 10_000
GRACE_LOST_MS = 30_000
APPEND_TIMEOUT_MS = 30_000
REMEMBERED_MAX = 20_000
ENDED_MAX = 500

AttemptKey = tuple[str, int]


@dataclass(slots=True)
class OpenLog:
    """An attempt's log that is not archived yet."""

    run_id: str
    repository: str
    delivery_id: str | None
    partition: int
    first_offset: int
    owner: tuple[str, str]
    writer: SegmentWriter = field(default_factory=SegmentWriter)
    segments: list[LogSegment] = field(default_factory=list)
    next_seq: int = 0
    faults: list[str] = field(default_factory=list)
    caused_by: str | None = None
    last_at: int = 0
    announced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempt:
    """An attempt that ended and has no archive yet, as the tables know it."""

    job_id: str
    attempt: int
    run_id: str
    repository: str
    runner_id: str
    boot_id: str
    delivery_id: str | None
    reason: str
    finished_at: int
    lost: bool
    log_lines: int
    ended_by: str | None


class Archiver:
    """Follows `logs` and archives what ended; one thread of the projector runs it."""

    def __init__(
        self,
        *,
        connect: Callable[[], Connection],
        reader: LogReader,
        writer: LogWriter,
        objects: ObjectStore,
        clock: Clock,
        meters: Meters,
        holder: str,
        topic_id: str,
        cells: int,
        logs_topic: str = topics.LOGS,
        events_topic: str = topics.EVENTS,
        partitions: int = topics.LOG_PARTITIONS,
        grace_finished_ms: int = GRACE_FINISHED_MS,
        grace_lost_ms: int = GRACE_LOST_MS,
    ) -> None:
        """Wire it; `holder` names this copy, `topic_id` is the broker's id of `logs`."""
        self._connect = connect
        self._connection: Connection | None = None
        self._reader = reader
        self._writer = writer
        self._objects = objects
        self._clock = clock
        self._meters = meters
        self._holder = holder
        self._topic_id = topic_id
        self._cells = cells
        self._logs_topic = logs_topic
        self._events_topic = events_topic
        self._grace_finished_ms = grace_finished_ms
        self._grace_lost_ms = grace_lost_ms
        self._positions = dict.fromkeys(range(partitions), 0)
        self._next_offsets = dict.fromkeys(range(partitions), 0)
        self._open: dict[AttemptKey, OpenLog] = {}
        self._done: OrderedDict[AttemptKey, None] = OrderedDict()
        self._ended_since: dict[AttemptKey, int] = {}
        self._settled_ms = 0
        self._leads = False
        self.trouble = ""

    # ----------------------------------------------------------------------- the loop

    def run(self, stop: threading.Event) -> None:
        """Archive until `stop` is set; starts from the position again after any failure."""
        pause_ms = 100
        while not stop.is_set():
            try:
                if self._connection is None:
                    self._connection = self._connect()
                if self._leads:
                    self.turn()
                elif not self.try_to_lead():
                    stop.wait(LEASE_S / 5)
                self.trouble = ""
                pause_ms = 100
            except (psycopg.Error, LogError, ObjectStoreError) as error:
                self.trouble = f"archiving stopped: {error}"
                logger.warning("%s; trying again", self.trouble)
                self._step_down()
                stop.wait(pause_ms / 1000)
                pause_ms = min(pause_ms * 2, 5_000)
        if self._connection is not None:
            self._give_up_lease()
            self._connection.close()

    def try_to_lead(self) -> bool:
        """Take or renew the lease; on taking it, begin at the archived position."""
        cursor = self._opened().execute(
            "INSERT INTO archive_lease AS l (holder, until) "
            "VALUES (%(holder)s, now() + make_interval(secs => %(secs)s)) "
            "ON CONFLICT (only_one) DO UPDATE SET holder = EXCLUDED.holder, until = EXCLUDED.until "
            "WHERE l.holder = EXCLUDED.holder OR l.until < now()",
            {"holder": self._holder, "secs": LEASE_S},
        )
        held = cursor.rowcount == 1
        if held and not self._leads:
            self._begin()
        self._leads = held
        return held

    def _begin(self) -> None:
        self._open.clear()
        self._ended_since.clear()
        for partition in self._positions:
            kept, _ = self._reader.bounds(self._logs_topic, partition)
            stored = store.position(self._opened(), topics.LOGS, partition, self._topic_id)
            self._positions[partition] = self._next_offsets[partition] = max(stored, kept)
        self._reader.assign(
            {(self._logs_topic, part): offset for part, offset in self._positions.items()}
        )

    def _step_down(self) -> None:
        self._leads = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up_lease(self) -> None:
        try:
            self._opened().execute("DELETE FROM archive_lease WHERE holder = %s", (self._holder,))
        except psycopg.Error as error:
            logger.info("the archive lease runs out by itself: %s", error)

    def _opened(self) -> Connection:
        if self._connection is None:
            raise psycopg.InterfaceError("not connected")
        return self._connection

    def turn(self) -> int:
        """Read and archive what is there; returns how many records that were."""
        records = self._reader.read(timeout_ms=POLL_TIMEOUT_MS, records_max=BATCHES_MAX)
        for record in records:
            self._take(record)
            self._next_offsets[record.partition] = record.next_offset
        now_ms = self._clock.steady_ms()
        if now_ms - self._settled_ms >= SETTLE_EVERY_MS:
            self._settled_ms = now_ms
            if self.try_to_lead():
                self._settle(now_ms, caught_up=not records)
        return len(records)

    # ----------------------------------------------------------------------- batches

    def _take(self, record: Record) -> None:
        try:
            batch = codec.LOGS.decode(record.value or b"")
        except codec.CodecError as error:
            # a hole, found again by the counts in the attempt's last batch
            logger.error("logs/%d offset %d: %s", record.partition, record.offset, error)  # noqa: TRY400
            return
        if not isinstance(batch, LogBatch):
            return
        key = (batch.job_id, batch.attempt)
        if key in self._done:
            return
        log = self._open.get(key)
        if log is None:
            log = self._open[key] = OpenLog(
                run_id=batch.run_id,
                repository=batch.repository,
                delivery_id=batch.delivery_id,
                partition=record.partition,
                first_offset=record.offset,
                owner=(batch.runner_id, batch.boot_id),
            )
        if log.announced or log.owner != (batch.runner_id, batch.boot_id):
            return
        if batch.seq < log.next_seq:
            return  # sent again by a runner that did not hear the acknowledgement
        self._add(key, log, batch)

    def _add(self, key: AttemptKey, log: OpenLog, batch: LogBatch) -> None:
        if batch.seq > log.next_seq or batch.first_line != log.writer.digest.lines:
            missing = batch.first_line - log.writer.digest.lines
            log.faults.append(f"{missing} lines before line {batch.first_line} are missing")
        log.next_seq = batch.seq + 1
        log.last_at = batch.occurred_at
        log.caused_by = batch.caused_by or log.caused_by
        try:
            for segment in log.writer.add(decompress(batch.block)):
                log.segments.append(self._stored(key, log, segment))
        except (SegmentError, LogLinesError) as error:
            log.faults.append(f"the lines from {batch.first_line} on are damaged ({error})")
        if batch.last:
            digest = log.writer.digest
            if not log.faults and digest.lines != batch.total_lines:
                log.faults.append(f"{digest.lines} of {batch.total_lines} lines are here")
            if not log.faults and digest.hexdigest() != batch.total_sha256:
                log.faults.append(f"its sha256 is not {batch.total_sha256}")
            self._announce(key, log)

    def _stored(self, key: AttemptKey, log: OpenLog, segment: Segment) -> LogSegment:
        name = object_key(log.run_id, *key, segment)
        self._objects.put(name, segment.data)
        return LogSegment(
            uri=name,
            sha256=segment.sha256,
            first_line=segment.first_line,
            lines=segment.lines,
            size_bytes=len(segment.data),
        )

    def _announce(self, key: AttemptKey, log: OpenLog) -> None:
        """Store what is left and append `LogArchived`."""
        for segment in log.writer.finish():
            log.segments.append(self._stored(key, log, segment))
        job_id, attempt = key
        digest = log.writer.digest
        event = LogArchived(
            event_id=codec.event_id("LogArchived", job_id, attempt),
            # not the time of archiving: archiving again gives the same event
            occurred_at=log.last_at,
            repository=log.repository,
            run_id=log.run_id,
            caused_by=log.caused_by,
            delivery_id=log.delivery_id,
            job_id=job_id,
            attempt=attempt,
            runner_id=log.owner[0],
            boot_id=log.owner[1],
            segments=tuple(log.segments),
            lines=digest.lines,
            size_bytes=digest.size_bytes,
            sha256=digest.hexdigest(),
            complete=not log.faults,
            detail="; ".join(log.faults)[:2000],
        )
        record = Append(
            topic=self._events_topic,
            partition=topics.cell_of(log.repository, self._cells),
            key=log.repository.encode(),
            value=codec.EVENTS.encode(event),
            headers=codec.event_headers(
                event, source="tailrace/projector", occurred_at=event.occurred_at
            ),
        )
        self._writer.append_all([record], timeout_ms=APPEND_TIMEOUT_MS)
        self._meters.count(metrics.EVENTS_APPENDED, "LogArchived")
        log.announced = True
        log.writer = SegmentWriter()

    # ----------------------------------------------------------------------- settling

    def _settle(self, now_ms: int, *, caught_up: bool) -> None:
        """Forget what the tables show as archived, end what nobody will end, move positions."""
        announced = [key for key, log in self._open.items() if log.announced]
        for key in self._archived(announced):
            del self._open[key]
            self._remember(key)
        if caught_up:
            self._end_abandoned(now_ms)
        for partition, position in self._positions.items():
            lowest = min(
                (log.first_offset for log in self._open.values() if log.partition == partition),
                default=self._next_offsets[partition],
            )
            if lowest > position:
                self._opened().execute(
                    "UPDATE position SET next_offset = greatest(next_offset, %s) "
                    "WHERE topic = %s AND partition = %s",
                    (lowest, topics.LOGS, partition),
                )
                self._positions[partition] = lowest

    def _remember(self, key: AttemptKey) -> None:
        self._done[key] = None
        self._ended_since.pop(key, None)
        while len(self._done) > REMEMBERED_MAX:
            self._done.popitem(last=False)

    def _archived(self, keys: Sequence[AttemptKey]) -> list[AttemptKey]:
        if not keys:
            return []
        rows = self._opened().execute(
            "SELECT job_id, attempt FROM attempt WHERE log_archived_offset IS NOT NULL "
            "AND (job_id, attempt) IN (SELECT * FROM unnest(%s::text[], %s::bigint[]))",
            ([key[0] for key in keys], [key[1] for key in keys]),
        )
        return [(row[0], row[1]) for row in rows.fetchall()]

    def _end_abandoned(self, now_ms: int) -> None:
        """Archive, as incomplete, logs whose last batch will not come any more."""
        for ended in self._ended():
            key = (ended.job_id, ended.attempt)
            since = self._ended_since.setdefault(key, now_ms)
            grace_ms = self._grace_lost_ms if ended.lost else self._grace_finished_ms
            log = self._open.get(key)
            if now_ms - since < grace_ms or (log is not None and log.announced):
                continue
            if log is None:
                log = self._open[key] = self._without_batches(ended)
            log.caused_by = ended.ended_by or log.caused_by
            log.last_at = max(log.last_at, ended.finished_at)
            if ended.lost or ended.log_lines or log.next_seq:
                why = ended.reason if ended.lost else "its runner sent no last batch"
                log.faults.append(f"the log has no end: {why}")
            self._announce(key, log)

    def _without_batches(self, ended: EndedAttempt) -> OpenLog:
        partition = topics.log_partition(ended.job_id, ended.attempt)
        return OpenLog(
            run_id=ended.run_id,
            repository=ended.repository,
            delivery_id=ended.delivery_id,
            partition=partition if partition in self._next_offsets else 0,
            first_offset=self._next_offsets.get(partition, 0),
            owner=(ended.runner_id, ended.boot_id),
        )

    def _ended(self) -> list[EndedAttempt]:
        rows = self._opened().execute(
            "SELECT a.job_id, a.attempt, a.run_id, a.repository, a.runner_id, a.boot_id, "
            "r.delivery_id, a.reason, coalesce(a.finished_at, 0), a.lost_at IS NOT NULL, "
            "a.log_lines, (SELECT e.event_id FROM event e WHERE e.run_id = a.run_id "
            "AND e.job_id = a.job_id AND e.attempt = a.attempt "
            "AND e.kind IN ('JobFinished', 'AttemptLost') ORDER BY e.\"offset\" DESC LIMIT 1) "
            "FROM attempt a LEFT JOIN run r ON r.run_id = a.run_id "
            "WHERE a.log_archived_offset IS NULL AND a.phase = 'ended' "
            "AND a.runner_id IS NOT NULL AND a.started_at IS NOT NULL "
            "ORDER BY a.finished_at LIMIT %s",
            (ENDED_MAX,),
        )
        names = EndedAttempt.__dataclass_fields__
        return [EndedAttempt(**dict(zip(names, row, strict=True))) for row in rows.fetchall()]
