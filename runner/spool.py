"""The runner's way out: every record in order, none lost while Kafka is away.

A record goes straight to the producer, which keeps its order and tries for ever. Nothing touches
the disk while acknowledgements come. When none has come for `OUTAGE_MS` the journal begins: what
is pending is written to it, and from then on every new record too. What is over `MEMORY_BYTES_MAX`
lies in the journal alone and is handed to the producer as acknowledgements make room. Once
everything is acknowledged the journal is removed.

So a runner that is killed during an outage leaves its reports and logs in the journal, and the
next boot sends them before it announces itself. A record that was acknowledged and is sent again
has the same id or `seq`, and changes nothing. Page cache survives kill -9; against a power cut the
journal is synced once a second.
"""

from __future__ import annotations

import logging
import marshal
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from infra.clock import Clock
from infra.log import Append, LogWriter
from schemas.late import dataclass

logger = logging.getLogger(__name__)

OUTAGE_MS = 1_000
MEMORY_BYTES_MAX = 16 * 1024 * 1024
JOURNAL_BYTES_MAX = 1024 * 1024 * 1024
_TICK_S = 0.25
_FRAME_BYTES = 8
_SUFFIX = ".journal"

OnAck = Callable[[], None]


@dataclass(slots=True)
class _Pending:
    """A record that the producer holds."""

    record: Append
    since_ms: int
    size: int
    on_ack: OnAck | None
    journaled: bool


class Spool:
    """Appends records in order; `report` and `accepts` never block."""

    def __init__(
        self,
        writer: LogWriter,
        folder: Path,
        *,
        name: str,
        clock: Clock,
        on_fatal: Callable[[Exception], None],
        journal_bytes_max: int = JOURNAL_BYTES_MAX,
    ) -> None:
        """Keep the journal of boot `name` in `folder`.

        `on_fatal` is told when the producer refused a record for good.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = writer
        self._path = folder / f"{name}{_SUFFIX}"
        self._clock = clock
        self._on_fatal = on_fatal
        self._journal_bytes_max = journal_bytes_max
        self._changed = threading.Condition()
        self._pending: dict[int, _Pending] = {}
        self._pending_bytes = 0
        self._number = 0
        self._last_ack_ms = clock.steady_ms()
        self._journal: IO[bytes] | None = None
        self._journal_bytes = 0
        self._spilled: deque[tuple[int, OnAck | None]] = deque()
        self._unsynced = False
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="spool", daemon=True)
        self._keeper.start()

    # ----------------------------------------------------------------- for the jobs

    def append(self, record: Append, on_ack: OnAck | None = None) -> None:
        """Take a record; `on_ack` is called from another thread once it is durable."""
        with self._changed:
            if self._spilled or (
                self._journal is not None and self._pending_bytes > MEMORY_BYTES_MAX
            ):
                self._spilled.append((self._write(record), on_ack))
                return
            journaled = self._journal is not None
            if journaled:
                self._write(record)
            self._hand_over(record, on_ack, journaled=journaled)

    def promise(self, record: Append) -> bool:
        """Note what shall follow once everything else is acknowledged; False without an outage.

        The caller still appends it itself then. Should this process be killed before, the next
        boot sends it after all the rest.
        """
        with self._changed:
            if self._journal is None:
                return False
            self._write(record, later=True)
            return True

    def accepts(self) -> bool:
        """Say whether logs may come; if not, their pipes must wait (and with them the jobs)."""
        if self._journal is None:
            return self._pending_bytes <= MEMORY_BYTES_MAX
        return self._journal_bytes <= self._journal_bytes_max

    def wait_empty(self, timeout_ms: int) -> bool:
        """Wait until everything is acknowledged; False when it is not in time."""
        with self._changed:
            return self._changed.wait_for(self._is_empty, timeout_ms / 1000)

    def close(self) -> None:
        """Stop keeping the journal; what it holds stays for the next boot."""
        self._closed.set()
        self._keeper.join()
        with self._changed:
            if not self._is_empty():
                self._begin_journal()
            if self._journal is not None:
                self._sync()
                self._journal.close()
                self._journal = None

    # ----------------------------------------------------------------- inside

    def _is_empty(self) -> bool:
        return not self._pending and not self._spilled

    def _hand_over(self, record: Append, on_ack: OnAck | None, *, journaled: bool) -> None:
        number = self._number
        self._number += 1
        size = len(record.value or b"")
        now_ms = self._clock.steady_ms()
        if not self._pending:
            self._last_ack_ms = now_ms
        self._pending[number] = _Pending(record, now_ms, size, on_ack, journaled)
        self._pending_bytes += size
        try:
            self._writer.append(record, lambda error: self._acked(number, error))
        except BufferError:
            del self._pending[number]
            self._pending_bytes -= size
            self._begin_journal()
            self._spilled.append((self._write(record), on_ack))

    def _acked(self, number: int, error: Exception | None) -> None:
        if error is not None:
            self._refused(number, error)
            return
        with self._changed:
            entry = self._pending.pop(number, None)
            if entry is None:
                return
            self._pending_bytes -= entry.size
            self._last_ack_ms = self._clock.steady_ms()
            if not self._pending and not self._spilled:
                self._end_journal()
                self._changed.notify_all()
        if entry.on_ack is not None:
            entry.on_ack()

    def _refused(self, number: int, error: Exception) -> None:
        entry = self._pending.get(number)
        place = "" if entry is None else f" for {entry.record.topic}/{entry.record.partition}"
        logger.critical("a record%s was refused: %s", place, error)
        self._on_fatal(error)

    def _keep(self) -> None:
        try:
            self._keep_journal()
        except Exception as error:
            logger.exception("the journal %s can't be kept", self._path)
            self._on_fatal(error)

    def _keep_journal(self) -> None:
        while not self._closed.wait(_TICK_S):
            with self._changed:
                now_ms = self._clock.steady_ms()
                if self._pending and self._journal is None:
                    oldest = next(iter(self._pending.values()))
                    quiet_ms = now_ms - max(self._last_ack_ms, oldest.since_ms)
                    if quiet_ms >= OUTAGE_MS:
                        logger.warning(
                            "Kafka has not acknowledged anything for %d ms: "
                            "reports and logs go to %s until it does",
                            quiet_ms,
                            self._path,
                        )
                        self._begin_journal()
                self._refill()
                self._sync()

    def _refill(self) -> None:
        """Hand what lies on disk alone to the producer as far as there is room."""
        while self._spilled and self._pending_bytes < MEMORY_BYTES_MAX // 2:
            offset, on_ack = self._spilled.popleft()
            record = _read_at(self._path, offset)
            before = len(self._spilled)
            self._hand_over(record, on_ack, journaled=True)
            if len(self._spilled) > before:  # no room after all: it must not lose its place
                self._spilled.rotate(1)
                return

    def _begin_journal(self) -> IO[bytes]:
        if self._journal is not None:
            return self._journal
        self._journal = self._path.open("ab")
        self._journal_bytes = self._journal.tell()
        for entry in self._pending.values():
            if not entry.journaled:
                self._write(entry.record)
                entry.journaled = True
        return self._journal

    def _end_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
            self._journal_bytes = 0
            self._path.unlink(missing_ok=True)
            logger.info("Kafka has acknowledged everything again")

    def _write(self, record: Append, *, later: bool = False) -> int:
        journal = self._begin_journal()
        offset = self._journal_bytes
        frame = _frame(record, later=later)
        journal.write(frame)
        journal.flush()
        self._journal_bytes += len(frame)
        self._unsynced = True
        return offset

    def _sync(self) -> None:
        if self._unsynced and self._journal is not None:
            os.fdatasync(self._journal.fileno())
            self._unsynced = False


def _frame(record: Append, *, later: bool) -> bytes:
    headers = [*map(tuple, record.headers)]
    body = marshal.dumps((later, record.topic, record.partition, record.key, record.value, headers))
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def _read_at(path: Path, offset: int) -> Append:
    with path.open("rb") as file:
        file.seek(offset)
        found = _read(file)
    if found is None:
        raise OSError(f"{path}: the record at byte {offset} is damaged")
    return found[1]


def _read(file: IO[bytes]) -> tuple[bool, Append] | None:
    head = file.read(_FRAME_BYTES)
    body = file.read(int.from_bytes(head[:4], "big")) if len(head) == _FRAME_BYTES else b""
    if not body or zlib.crc32(body) != int.from_bytes(head[4:], "big"):
        return None
    # written by this class into a folder of this runner's own
    later, topic, partition, key, value, headers = marshal.loads(body)  # noqa: S302
    return bool(later), Append(topic, partition, key, value, headers)


def leftovers(folder: Path) -> list[Path]:
    """Return the journals that earlier boots left, oldest first."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def records_of(journal: Path, *, later: bool = False) -> Iterator[Append]:
    """Yield what a journal holds, or what was to follow all of it (`later`).

    A torn end, which nobody was promised, is left out.
    """
    with journal.open("rb") as file:
        while (found := _read(file)) is not None:
            if found[0] == later:
                yield found[1]
