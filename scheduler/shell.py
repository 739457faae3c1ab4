"""The only loop that consumes, decides and produces: one owner of one cell.

Its steps are ordered so that a dead, slow or doubled owner can't hurt: see `take` and `step`.
"""

from __future__ import annotations

import heapq
import logging
import threading
from dataclasses import field

from infra.clock import Clock
from infra.log import Append, Log, LogReader, Record, TransactionalWriter
from scheduler import changelog
from scheduler.changelog import DECIDER, INPUT_OFFSET, NUMBER
from scheduler.core.cell import Cell
from scheduler.core.outputs import Order, Output
from scheduler.core.state import Armed, forget_changes
from schemas.codec import EVENTS as CODEC
from schemas.codec import LANES as LANE_CODEC
from schemas.codec import CodecError, event_headers, event_id
from schemas.events import DeadlinePassed, Event, SchedulerStarted
from schemas.late import dataclass
from schemas.topics import EVENTS, SCHEDULER_STATE, lane_topic

logger = logging.getLogger(__name__)

RECORDS_MAX = 500
IDLE_MS = 500
#: Transactions follow each other at this distance under load: each then carries more. An idle
#: cell's first input waits for nothing.
PACE_MS = 8
#: Commit the position alone after so many records that decided nothing: a restart reads less.
UNCOMMITTED_MAX = 20_000
_SOURCE = "tailrace/scheduler"


class HeldError(Exception):
    """A record of the cell can't be read; the cell stands still until someone acts.

    Restart a newer version if the schema is unknown; otherwise look at the record that the
    message names: the scheduler never guesses and never skips.
    """


@dataclass(slots=True)
class Counts:
    """What the loop did, for `/metrics` and `/readyz`."""

    events: int = 0
    decisions: int = 0
    transactions: int = 0
    held: str = ""


@dataclass(slots=True)
class CellShell:
    """Owns a cell from `take` until it is closed or fails; then it is thrown away whole."""

    log: Log
    clock: Clock
    number: int
    version: str
    host: str = ""
    pace_ms: int = PACE_MS
    counts: Counts = field(default_factory=Counts)
    cell: Cell = field(init=False)
    next_offset: int = field(init=False, default=0)
    _writer: TransactionalWriter | None = field(init=False, default=None)
    _reader: LogReader | None = field(init=False, default=None)
    _committed: int = field(init=False, default=0)
    _rest_until_ms: int = field(init=False, default=0)
    _paced: threading.Event = field(init=False, default_factory=threading.Event)
    _due: list[tuple[int, str]] = field(init=False, default_factory=list)
    _passed: set[str] = field(init=False, default_factory=set)

    def take(self) -> None:
        """Become the owner, in this order: fence, restore, seek, announce.

        The new writer ends what a predecessor left open, so that nothing can be appended to the
        changelog behind the end that is read after it.
        """
        self._writer = self.log.transactional_writer(f"tailrace-cell-{self.number}")
        restored = self._restored()
        self.cell = restored.cell
        self.next_offset = self._committed = restored.next_offset
        now_ms = self.clock.now_ms()
        for armed in self.cell.state.armed:
            # nobody counted while nobody owned the cell: whoever was waited for gets the whole
            # time again, so that an outage of ours is no fault of theirs; an instant stays one
            armed.due_at = armed.at_ms or max(armed.due_at, now_ms + armed.delay_ms)
            self._schedule_deadline(armed)
        self._reader = self.log.reader()
        self._reader.assign({(EVENTS, self.number): self.next_offset})
        started = SchedulerStarted(
            event_id=event_id("SchedulerStarted", self.number, self.host, now_ms),
            occurred_at=now_ms,
            version=self.version,
            cell=self.number,
            host=self.host,
        )
        tombstones = [
            Append(SCHEDULER_STATE, self.number, key.encode(), None) for key in restored.obsolete
        ]
        self._commit([self._decision(started, self.next_offset - 1, 0, now_ms), *tombstones])
        logger.info(
            "took cell %d at offset %d (%s, %d runs open)",
            self.number,
            self.next_offset,
            "folded from events" if restored.refolded else "from the changelog",
            len(self.cell.state.runs),
        )

    def _restored(self) -> changelog.Restored:
        try:
            return changelog.restore(self.log, self.number)
        except CodecError as error:
            self.counts.held = str(error)
            raise HeldError(f"cell {self.number} can't be restored: {error}") from error

    def run(self, stop: threading.Event) -> None:
        """Take the cell and serve it until `stop`; any error ends the ownership."""
        try:
            self.take()
            while not stop.is_set():
                self.step()
        finally:
            self.close()

    def step(self, *, idle_ms: int = IDLE_MS) -> bool:
        """Handle one batch of records and what is due; returns whether anything was committed."""
        if self._reader is None:
            raise RuntimeError("the cell was not taken")
        self._rest()
        records = self._reader.read(timeout_ms=self._patience(idle_ms), records_max=RECORDS_MAX)
        now_ms = self.clock.now_ms()
        appends: list[Append] = []
        for record in records:
            appends += self._handle(record, now_ms)
            self.next_offset = record.next_offset
        self._forget_passed()
        for armed in self._newly_armed():
            # an index may bring a tick back that has passed: it passes again
            self._passed.discard(armed.deadline_id)
            armed.due_at = armed.at_ms or now_ms + armed.delay_ms
            self._schedule_deadline(armed)
        appends += self._deadlines(now_ms)
        if not appends and self.next_offset - self._committed < UNCOMMITTED_MAX:
            return False
        self._commit(appends)
        return True

    def _rest(self) -> None:
        rest_ms = self._rest_until_ms - self.clock.steady_ms()
        if 0 < rest_ms <= self.pace_ms:
            self._paced.wait(rest_ms / 1000)

    def _handle(self, record: Record, now_ms: int) -> list[Append]:
        try:
            event = changelog.read_input(record)
        except CodecError as error:
            place = f"{record.topic}/{record.partition} offset {record.offset}"
            self.counts.held = f"{place}: {error}"
            raise HeldError(f"{place} can't be read: {error}") from error
        if event is None:
            return []
        self.counts.events += 1
        outputs = self.cell.handle(event, record.offset)
        return self._records_of(outputs, record.offset, now_ms)

    def _records_of(self, outputs: list[Output], offset: int, now_ms: int) -> list[Append]:
        made: list[Append] = []
        number = 0
        for output in outputs:
            if isinstance(output, Order):
                made.append(
                    Append(
                        lane_topic(output.pool),
                        output.lane,
                        output.record.runner_id.encode(),
                        LANE_CODEC.encode(output.record),
                        ((DECIDER, b"scheduler"), (INPUT_OFFSET, b"%d" % offset)),
                    )
                )
            else:
                made.append(self._decision(output, offset, number, now_ms))
                number += 1
        self.counts.decisions += number
        return made

    def _decision(self, event: Event, offset: int, number: int, now_ms: int) -> Append:
        # a delivery that the core made brings the time of its cause, which its run's id has in it
        at_ms = event.occurred_at or now_ms
        headers = event_headers(event, source=_SOURCE, occurred_at=at_ms)
        headers += [
            (DECIDER, b"scheduler"),
            (INPUT_OFFSET, b"%d" % offset),
            (NUMBER, b"%d" % number),
        ]
        key = event.repository or event.runner_id or ""
        value = CODEC.encode(event, occurred_at=at_ms)
        return Append(EVENTS, self.number, key.encode(), value, headers)

    # ----------------------------------------------------------------- deadlines

    def _newly_armed(self) -> list[Armed]:
        armed = self.cell.state.armed
        rows = [armed.rows[key] for key in sorted(armed.changed) if key in armed.rows]
        return [row for row in rows if row.due_at == 0]

    def _forget_passed(self) -> None:
        """What is armed no longer was read back: its id may be armed again."""
        armed = self.cell.state.armed
        self._passed -= {key for key in armed.changed if key not in armed.rows}

    def _schedule_deadline(self, armed: Armed) -> None:
        heapq.heappush(self._due, (armed.due_at, armed.deadline_id))

    def _patience(self, idle_ms: int) -> int:
        """Return how long a read may wait: not past the next deadline."""
        if not self._due:
            return idle_ms
        return max(0, min(idle_ms, self._due[0][0] - self.clock.now_ms()))

    def _deadlines(self, now_ms: int) -> list[Append]:
        """Return DeadlinePassed, as inputs to be read back, for what is due and still armed."""
        passed: list[Append] = []
        while self._due and self._due[0][0] <= now_ms:
            _, deadline_id = heapq.heappop(self._due)
            armed = self.cell.state.armed.get(deadline_id)
            if armed is None or deadline_id in self._passed:
                continue
            self._passed.add(deadline_id)
            event = DeadlinePassed(
                event_id=event_id("DeadlinePassed", deadline_id),
                occurred_at=now_ms,
                repository=armed.repository,
                run_id=armed.run_id,
                caused_by=armed.caused_by,
                deadline_id=deadline_id,
            )
            headers = event_headers(event, source=_SOURCE, occurred_at=now_ms)
            key = (armed.repository or deadline_id).encode()
            passed.append(Append(EVENTS, self.number, key, CODEC.encode(event), headers))
        return passed

    # ----------------------------------------------------------------- commits

    def _commit(self, appends: list[Append]) -> None:
        """Write decisions, orders, changed rows and the position: all of them or none.

        An error here leaves state in memory that may not be in the log: the caller drops this
        object, and `take` begins again from what was committed.
        """
        if self._writer is None:
            raise RuntimeError("the cell was not taken")
        state_records = changelog.commit_records(self.cell, self.number, self.next_offset)
        self._writer.transact([*appends, *state_records])
        forget_changes(self.cell.state)
        self._committed = self.next_offset
        self.counts.transactions += 1
        self._rest_until_ms = self.clock.steady_ms() + self.pace_ms

    def lag(self) -> int:
        """Return how many records of the cell are still to be read."""
        if self._reader is None:
            return 0
        return self._reader.behind(EVENTS, self.number, self.next_offset)

    def close(self) -> None:
        """Let go of everything; the cell's next owner restores from the log."""
        if self._reader is not None:
            self._reader.close()
        if self._writer is not None:
            self._writer.close()
