"""Follows `events` in a thread of its own and lets requests wait for a position."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from infra.clock import Clock
from infra.log import LogReader, Record
from runner.gateway.leases import KINDS, Lease, Leases, Token
from schemas import topics
from schemas.codec import EVENTS

logger = logging.getLogger(__name__)

READ_MS = 200
READ_RECORDS_MAX = 2_000
SAVE_MS = 10_000
_TYPE = "ce_type"
_TYPES = frozenset(f"tailrace.{kind}".encode() for kind in KINDS)


class Follower:
    """The gateway's copy of the leases.

    A start goes on from what was saved; without that (or when `events` begins later than it) it
    reads from the beginning, skipping by header everything that says nothing of leases.
    """

    def __init__(
        self,
        reader: LogReader,
        *,
        cells: int,
        clock: Clock,
        saved: Path | None = None,
        on_failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow `cells` partitions; the state is kept in the file `saved`.

        `on_failed` is called, in the follower's thread, when it can't go on: it has to end the
        process, for only a new start follows again.
        """
        self._reader = reader
        self._cells = cells
        self._clock = clock
        self._saved = saved
        self._on_failed = on_failed
        self._saved_ms = 0
        self._leases = Leases()
        self._changed = threading.Condition()
        self._ends: dict[int, int] = {}
        self._stopping = threading.Event()
        self.failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and keep the state."""
        self._stopping.set()
        self._thread.join(5)
        self._reader.close()
        self._save()

    def lease(
        self, token: Token, *, partition: int, position: int, timeout_ms: int
    ) -> Lease | None:
        """Return the token's lease as soon as there is one.

        The assignment lies behind `position`, its cause: so after it was passed, the rest of the
        time is still given to the JobAssigned itself. None when there is none in time.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._leases.next_offsets.get(partition, 0) > position
                    and self._leases.lease(token) is not None
                ),
                timeout_ms / 1000,
            )
            return self._leases.lease(token)

    def live(self, token: Token) -> Lease | None:
        """Return the token's lease if the fold has it now; waits for nothing."""
        with self._changed:
            return self._leases.lease(token)

    def key(self, runner_id: str, boot_id: str) -> str:
        """Return the public key of a boot; "" when it is over or was not announced (yet)."""
        with self._changed:
            return self._leases.key(runner_id, boot_id)

    def positions(self) -> dict[int, int]:
        """Return the offset after the last record that is folded, by partition."""
        with self._changed:
            return dict(self._leases.next_offsets)

    def lag(self) -> int:
        """Return how many records are to be read before the fold is where `events` was at start."""
        with self._changed:
            return sum(
                max(0, end - self._leases.next_offsets.get(part, 0))
                for part, end in self._ends.items()
            )

    @property
    def caught_up(self) -> bool:
        """Whether everything up to the start is folded."""
        return len(self._ends) == self._cells and self.lag() == 0

    # ----------------------------------------------------------------- inside

    def _run(self) -> None:
        try:
            self._begin()
            while not self._stopping.is_set():
                records = self._reader.read(timeout_ms=READ_MS, records_max=READ_RECORDS_MAX)
                if records:
                    self._take(records)
                self._note_ends()
                if self._clock.steady_ms() - self._saved_ms > SAVE_MS:
                    self._save()
        except Exception as error:  # the process ends by it: nothing may be released blindly
            logger.exception("the gateway can't follow the log")
            self.failed = error
            self._on_failed()

    def _begin(self) -> None:
        kept = self._kept()
        positions = {}
        for part in range(self._cells):
            first, end = self._reader.bounds(topics.EVENTS, part)
            at = kept.next_offsets.get(part, first) if kept is not None else first
            if not first <= at <= end:
                # another log under the same name: what was kept is of no use
                kept, at = None, first
            positions[part] = at
            self._ends[part] = end
        if kept is None:
            positions = {part: self._reader.bounds(topics.EVENTS, part)[0] for part in positions}
            kept = Leases()
        kept.next_offsets = dict(positions)
        with self._changed:
            self._leases = kept
        self._reader.assign({(topics.EVENTS, part): at for part, at in positions.items()})

    def _note_ends(self) -> None:
        """Where the reader has ended, what lies up to the end are marks of transactions."""
        for part in self._ends:
            if self._reader.ended(topics.EVENTS, part):
                self._ends[part] = min(self._ends[part], self._leases.next_offsets.get(part, 0))

    def _take(self, records: list[Record]) -> None:
        decoded = [
            EVENTS.decode(record.value)
            for record in records
            if record.value is not None and record.header(_TYPE) in _TYPES
        ]
        with self._changed:
            for event in decoded:
                self._leases.evolve(event)
            for record in records:
                self._leases.next_offsets[record.partition] = record.next_offset
            self._changed.notify_all()

    def _kept(self) -> Leases | None:
        if self._saved is None:
            return None
        try:
            return Leases.from_json(self._saved.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return None

    def _save(self) -> None:
        self._saved_ms = self._clock.steady_ms()
        if self._saved is None or not self._leases.next_offsets:
            return
        with self._changed:
            text = self._leases.to_json()
        draft = self._saved.with_suffix(".new")
        try:
            self._saved.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._saved)
        except OSError as error:
            logger.warning("the gateway's state could not be kept: %s", error)
