"""The log as the rest of the program sees it: records, readers, writers and one in memory.

A partition's records are in one order; `offset` is a record's own place in it, `next_offset` the
one after. Kafka's implementation is `infra/kafka.py`; one suite of tests holds both to this.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Headers = Sequence[tuple[str, bytes]]
Partition = tuple[str, int]


class LogError(Exception):
    """The log could not do what was asked; the message names the topic and what to check."""


class AppendError(LogError):
    """A record was not acknowledged; it may still be in the log, so a repeat keeps its id."""


class FencedError(LogError):
    """Another writer took this transactional id: stop at once and start from the log."""


class TransactionError(LogError):
    """A transaction's outcome is failed or unknown: throw the writer and its state away."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it lies in a partition."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = 0

    @property
    def next_offset(self) -> int:
        """The offset to go on from after this record."""
        return self.offset + 1

    def header(self, name: str) -> bytes | None:
        """Return the first header of that name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Append:
    """One record to be written."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class LogReader(Protocol):
    """Reads committed records of the partitions it was given, each in order."""

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read exactly these partitions from these offsets; replaces what was assigned."""
        ...

    def read(self, *, timeout_ms: int, records_max: int) -> list[Record]:
        """Return what is there, at once when anything is, else after at most `timeout_ms`."""
        ...

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (first offset kept, next offset of the last committed record)."""
        ...

    def behind(self, topic: str, partition: int, next_offset: int) -> int:
        """Return how many records are still to be read, as far as is known here; at once."""
        ...

    def ended(self, topic: str, partition: int) -> bool:
        """Say whether all there was at the last read has been read."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class Log(Protocol):
    """Where readers and writers come from."""

    def reader(self) -> LogReader:
        """Return a reader with nothing assigned."""
        ...

    def transactional_writer(self, transactional_id: str) -> TransactionalWriter:
        """Return a writer that fences every earlier one of the same id."""
        ...

    def read_to_end(self, topic: str, partition: int, offset: int | None) -> Iterator[Record]:
        """Yield committed records from `offset` (None: the first kept) to today's end."""
        ...


class LogWriter(Protocol):
    """Appends records; idempotent within its life."""

    def append(self, record: Append, on_ack: Callable[[Exception | None], None]) -> None:
        """Queue a record; `on_ack` is called from another thread with None once it is durable."""
        ...

    def append_at(self, record: Append, on_stored: Callable[[int, Exception | None], None]) -> None:
        """As `append`; `on_stored` is told the record's offset (-1 when it failed)."""
        ...

    def append_all(self, records: Sequence[Append], *, timeout_ms: int) -> None:
        """Append and wait for every acknowledgement; AppendError names what failed."""
        ...

    def close(self) -> None:
        """Flush; AppendError when something was not acknowledged."""
        ...


class TransactionalWriter(Protocol):
    """Appends sets of records of which readers see all or nothing."""

    def transact(self, records: Sequence[Append]) -> None:
        """Append all in one transaction and return once it is committed.

        Raises FencedError when another writer has the id, TransactionError for anything else;
        after either the writer must be closed and its owner's state restored from the log.
        """
        ...

    def close(self) -> None:
        """Let go of the connection without waiting."""
        ...


# --------------------------------------------------------------------------- in memory


@dataclass(slots=True)
class MemoryLog:
    """A log in one process, for simulation and local runs: same order, same fencing.

    Not durable and not shared between processes, which is what Kafka is for. With `waits`, reads
    wait for records of other threads; without it they return at once, so that one thread can play
    every part.
    """

    records: dict[Partition, list[Record]] = field(default_factory=lambda: defaultdict(list))
    epochs: dict[str, int] = field(default_factory=dict)
    now_ms: Callable[[], int] = lambda: 0
    waits: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def put(self, record: Append) -> Record:
        """Append at the partition's end."""
        return self.put_all([record])[0]

    def put_all(self, records: Sequence[Append]) -> list[Record]:
        """Append all at once: no reader sees a part of them."""
        with self.changed:
            stored = [self._stored(record) for record in records]
            self.changed.notify_all()
        return stored

    def stop_waiting(self) -> None:
        """Let all reads return at once from now on: the parts of a run are about to end."""
        with self.changed:
            self.waits = False
            self.changed.notify_all()

    def _stored(self, record: Append) -> Record:
        lane = self.records[(record.topic, record.partition)]
        stored = Record(
            record.topic,
            record.partition,
            len(lane),
            record.key,
            record.value,
            tuple(record.headers),
            self.now_ms(),
        )
        lane.append(stored)
        return stored

    def reader(self) -> MemoryReader:
        """Return a reader of this log."""
        return MemoryReader(self)

    def read_to_end(self, topic: str, partition: int, offset: int | None) -> Iterator[Record]:
        """Yield what is there now."""
        with self.changed:
            found = self.records[(topic, partition)][offset or 0 :]
        yield from found

    def writer(self) -> MemoryWriter:
        """Return an idempotent writer."""
        return MemoryWriter(self)

    def transactional_writer(self, transactional_id: str) -> MemoryTransactionalWriter:
        """Return a writer that fences every earlier one of the same id."""
        with self.changed:
            epoch = self.epochs[transactional_id] = self.epochs.get(transactional_id, 0) + 1
        return MemoryTransactionalWriter(self, transactional_id, epoch)


class MemoryReader:
    """Reads a `MemoryLog`."""

    def __init__(self, log: MemoryLog) -> None:
        """Start with nothing assigned."""
        self._log = log
        self._positions: dict[Partition, int] = {}

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read exactly these partitions from these offsets."""
        self._positions = dict(positions)

    def read(self, *, timeout_ms: int, records_max: int) -> list[Record]:
        """Return what is there; waits for it only if the log's other parts are other threads."""
        with self._log.changed:
            found = self._found(records_max)
            if not found and self._log.waits and timeout_ms > 0:
                self._log.changed.wait_for(self._has_more, timeout_ms / 1000)
                found = self._found(records_max)
        return found

    def _has_more(self) -> bool:
        if not self._log.waits:
            return True
        ends = ((partition, len(self._log.records[partition])) for partition in self._positions)
        return any(self._positions[partition] < end for partition, end in ends)

    def _found(self, records_max: int) -> list[Record]:
        found: list[Record] = []
        for partition, position in self._positions.items():
            room = records_max - len(found)
            found += self._log.records[partition][position : position + room]
            if room == 0:
                break
        for record in found:
            self._positions[(record.topic, record.partition)] = record.next_offset
        return found

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (0, next offset)."""
        return 0, len(self._log.records[(topic, partition)])

    def behind(self, topic: str, partition: int, next_offset: int) -> int:
        """Return how many records are still to be read."""
        return len(self._log.records[(topic, partition)]) - next_offset

    def ended(self, topic: str, partition: int) -> bool:
        """Say whether everything has been read."""
        return self._positions.get((topic, partition), 0) >= len(
            self._log.records[(topic, partition)]
        )

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryWriter:
    """Writes a `MemoryLog`; every append is acknowledged at once."""

    def __init__(self, log: MemoryLog) -> None:
        """Write to `log`."""
        self._log = log

    def append(self, record: Append, on_ack: Callable[[Exception | None], None]) -> None:
        """Append and acknowledge."""
        self._log.put(record)
        on_ack(None)

    def append_at(self, record: Append, on_stored: Callable[[int, Exception | None], None]) -> None:
        """Append and acknowledge."""
        on_stored(self._log.put(record).offset, None)

    def append_all(self, records: Sequence[Append], *, timeout_ms: int) -> None:  # noqa: ARG002
        """Append all."""
        self._log.put_all(records)

    def close(self) -> None:
        """Nothing is pending."""


class MemoryTransactionalWriter:
    """Writes whole transactions to a `MemoryLog` while no later writer has its id."""

    def __init__(self, log: MemoryLog, transactional_id: str, epoch: int) -> None:
        """Write to `log` as the `epoch`-th owner of the id."""
        self._log = log
        self._id = transactional_id
        self._epoch = epoch

    def transact(self, records: Sequence[Append]) -> None:
        """Append all, or FencedError and nothing."""
        with self._log.changed:  # reentrant: no later writer comes between
            if self._log.epochs[self._id] != self._epoch:
                raise FencedError(f"transactional id {self._id} was taken by a later writer")
            self._log.put_all(records)

    def close(self) -> None:
        """Nothing to let go of."""
