"""The fleet as a process on a real Kafka: restarts, silence, poison, holes in the offsets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from infra.embedded.kafka import Broker
from infra.embedded.ports import free_port
from infra.kafka import KafkaReader, KafkaTransactionalWriter, KafkaWriter
from infra.log import Append, Record
from infra.topics import ensure
from scheduler.fleet import APP_ID
from schemas import topics
from schemas.codec import EVENTS, HEARTBEATS
from schemas.events import Event, RunnerJoined, RunnerLost
from schemas.streams import Heartbeat
from tests.support.eventually import eventually
from tests.support.shared import cache_dir

BEAT = Heartbeat(
    runner_id="r1", boot_id="b1", pool="default", labels=("linux",), slots=2, lane=1
)  # fmt: skip
KEY = topics.heartbeat_key("r1", "b1").encode()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[str]:
    """Yield a broker of this test's own: the fleet reads topics whose names are fixed."""
    broker = Broker(tmp_path / "kafka", cache=cache_dir(), log_path=tmp_path / "kafka.log")
    try:
        bootstrap = broker.start()
        ensure(bootstrap, topics.topic_specs(cells=1, pools=("default",)))
        yield bootstrap
    finally:
        broker.stop()


class FleetProcess:
    """A fleet in a process of its own."""

    def __init__(self, bootstrap: str, home: Path) -> None:
        """Remember how to start it."""
        self._home = home
        self._port = free_port()
        self._env = {
            **os.environ,
            "TAILRACE_HOME": str(home),
            "TAILRACE_KAFKA_BOOTSTRAP": bootstrap,
            "TAILRACE_FLEET_PORT": str(self._port),
            "TAILRACE_INSTANCE": "fleet",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with (self._home / "fleet.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scheduler.fleet"], env=self._env, stderr=log
            )
        eventually(lambda: self.readiness()["status"] == "ok", what="the fleet being ready")

    def readiness(self) -> dict[str, object]:
        """Return what /readyz says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5) as got:
                return dict(json.load(got))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=5)


@contextmanager
def running_fleet(bootstrap: str, home: Path) -> Iterator[FleetProcess]:
    """Start a fleet that is gone afterwards."""
    fleet = FleetProcess(bootstrap, home)
    try:
        fleet.start()
        yield fleet
    finally:
        if fleet.process is not None and fleet.process.poll() is None:
            fleet.end(signal.SIGKILL)


def records_of(bootstrap: str, topic: str) -> list[Record]:
    """Return everything on partition 0 of a topic."""
    reader = KafkaReader(bootstrap, "test")
    try:
        low, high = reader.bounds(topic, 0)
        reader.assign({(topic, 0): low})
        found: list[Record] = []
        while True:
            batch = reader.read(timeout_ms=300, records_max=1_000)
            found += batch
            if not batch and (not found or found[-1].next_offset >= high or low == high):
                return found
    finally:
        reader.close()


def events_of(bootstrap: str) -> list[Event]:
    """Return the events of cell 0."""
    return [EVENTS.decode(r.value or b"") for r in records_of(bootstrap, topics.EVENTS)]


def committed(bootstrap: str) -> int:
    """Return the offset that the fleet's group committed."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": APP_ID})
    try:
        [found] = consumer.committed([TopicPartition(topics.HEARTBEATS, 0)], timeout=10)
        return int(found.offset)
    finally:
        consumer.close()


def test_a_boot_that_fell_silent_is_lost_though_the_fleet_was_killed(
    own_kafka: str, tmp_path: Path
) -> None:
    """Joined with every unwelcomed heartbeat; silence outlives kill -9 of the fleet; poison and
    holes in the offsets hold nothing up; SIGTERM ends it orderly.
    """
    writer = KafkaWriter(own_kafka, "test-runner")

    def put(value: bytes, key: bytes = KEY) -> None:
        writer.append_all([Append(topics.HEARTBEATS, 0, key, value)], timeout_ms=10_000)

    with running_fleet(own_kafka, tmp_path) as fleet:
        put(HEARTBEATS.encode(BEAT))
        put(b"poison", b"someone")
        # transactions leave markers: offsets that no reader ever sees
        transactional = KafkaTransactionalWriter(own_kafka, "test-holes", "test-holes")
        for _ in range(3):
            transactional.transact([Append(topics.HEARTBEATS, 0, KEY, HEARTBEATS.encode(BEAT))])
        transactional.close()
        eventually(lambda: len(events_of(own_kafka)) == 4, what="four joinings")
        assert len({event.event_id for event in events_of(own_kafka)}) == 1
        [dead] = eventually(lambda: records_of(own_kafka, topics.DEAD_LETTERS), what="dead letter")
        assert dead.value == b"poison"
        holes_end = max(record.offset for record in records_of(own_kafka, topics.HEARTBEATS))
        eventually(lambda: committed(own_kafka) > holes_end, what="a commit beyond the holes")

        fleet.end(signal.SIGKILL)
        fleet.start()
        assert fleet.readiness()["boots"] == 1
        lost = eventually(
            lambda: [e for e in events_of(own_kafka) if isinstance(e, RunnerLost)],
            timeout_ms=60_000,
            what="the silent boot being lost",
        )
        assert [(e.runner_id, e.boot_id, e.reason) for e in lost] == [("r1", "b1", "silent")]
        joined = [e for e in events_of(own_kafka) if isinstance(e, RunnerJoined)]
        assert len(joined) == 4
        tombstones = [r for r in records_of(own_kafka, topics.HEARTBEATS) if r.value is None]
        assert [r.key for r in tombstones] == [KEY]
        assert fleet.end(signal.SIGTERM) == 0
    writer.close()
