"""Reading and writing a real log in tests, in the words of events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from infra.kafka import KafkaLog, KafkaWriter
from infra.kafka_admin import Admin
from infra.log import Append, Record
from schemas import codec
from schemas.events import Event
from schemas.lanes import LaneRecord
from schemas.topics import EVENTS, LANES, lane_topic, topic_specs


@dataclass(frozen=True, slots=True)
class Logged:
    """One event with its record."""

    event: Event
    record: Record

    @property
    def decided(self) -> bool:
        """Whether the scheduler made it."""
        return self.record.header("decider") is not None


class Wire:
    """Appends inputs and reads back what is committed; topics are made when it is."""

    def __init__(self, bootstrap: str, *, cells: int = 1, pools: tuple[str, ...] = ("default",)):
        """Create the topics of an installation on a broker of the test's own."""
        self.bootstrap = bootstrap
        Admin(bootstrap).ensure_topics(topic_specs(cells=cells, pools=pools))
        self._writer = KafkaWriter(bootstrap, "test-wire")
        self._writer.warm()
        self._log = KafkaLog(bootstrap, "test-wire")

    def append(self, events: Iterable[Event], *, cell: int = 0) -> None:
        """Append inputs and wait until they are durable."""
        records = [
            Append(
                EVENTS,
                cell,
                (event.repository or event.runner_id or "").encode(),
                codec.EVENTS.encode(event),
                codec.event_headers(event, source="test", occurred_at=event.occurred_at),
            )
            for event in events
        ]
        self._writer.append_all(records, timeout_ms=10_000)

    def events(self, *, cell: int = 0) -> list[Logged]:
        """Return every committed event of a cell."""
        return [
            Logged(codec.EVENTS.decode(record.value or b""), record)
            for record in self._log.read_to_end(EVENTS, cell, None)
        ]

    def orders(self, pool: str = "default") -> list[LaneRecord]:
        """Return every committed order of a pool."""
        return [
            codec.LANES.decode(record.value or b"")
            for lane in range(LANES)
            for record in self._log.read_to_end(lane_topic(pool), lane, None)
        ]

    def close(self) -> None:
        """Let go of the broker."""
        self._writer.close()
