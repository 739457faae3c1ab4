"""The embedded Kafka and PostgreSQL: they start, they survive kill -9, they keep what they said."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from infra.embedded.kafka import Broker, broker_count
from infra.embedded.ports import free_port
from infra.embedded.postgres import Postgres, takes_connections
from tests.support.shared import cache_dir


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Yield a broker of this test's own, not started."""
    broker = Broker(tmp_path / "kafka", cache=cache_dir())
    yield broker
    broker.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    """Yield a PostgreSQL of this test's own, not started."""
    server = Postgres(tmp_path / "postgres")
    yield server
    server.kill()


def test_acknowledged_records_survive_kill_9_of_the_broker(broker: Broker) -> None:
    """What the broker acknowledged is there after a kill and a start on the same folder."""
    _create_topic(broker.start(), "kept")
    _append(broker.bootstrap, "kept", [b"one", b"two"])
    broker.kill()

    broker.start()

    assert _read(broker.bootstrap, "kept", count=2) == [b"one", b"two"]


def test_a_topic_is_never_made_by_using_it(broker: Broker) -> None:
    """A client that asks for a topic which nobody created gets an error, and no topic."""
    producer = Producer({"bootstrap.servers": broker.start()})

    asked_for = producer.list_topics("typo", timeout=20).topics["typo"]

    assert asked_for.error is not None
    assert "typo" not in producer.list_topics(timeout=20).topics


def test_a_half_formatted_data_folder_is_formatted_anew(broker: Broker) -> None:
    """A kill in mid-format leaves a draft, which the next start throws away."""
    draft = broker.home / "data.new"
    draft.mkdir(parents=True)
    (draft / "meta.properties").write_text("version=1\ncluster.id=half", encoding="ascii")

    broker.start()

    assert broker.answers()
    assert not draft.exists()


def test_another_object_on_the_folder_finds_and_stops_the_broker(broker: Broker) -> None:
    """The process belongs to the folder: whoever opens it can stop what another one started."""
    before = Broker(broker.home, cache=cache_dir())  # chose ports that nobody will use
    broker.start()
    other = Broker(broker.home, cache=cache_dir())

    assert other.bootstrap == broker.bootstrap
    assert before.start(timeout_s=5) == broker.bootstrap
    other.stop()

    assert broker.process is None
    assert not broker.answers()


def test_the_next_start_finds_the_brokers_classes_archived(broker: Broker) -> None:
    """The archive is made beside the running broker, then mapped instead of reading jars."""
    broker.start()
    assert broker.archive_classes(threading.Event(), niceness=0)
    broker.stop()

    broker.start()

    assert broker.process
    mapped = Path(f"/proc/{broker.process.pid}/maps").read_text(encoding="utf-8")
    assert re.search(r"/classes-[0-9a-f]{16}\.jsa$", mapped, re.MULTILINE)


def test_health_probes_are_false_where_nobody_answers() -> None:
    """A port without a listener is neither a broker nor a database."""
    port = free_port()

    assert broker_count("127.0.0.1", port) == 0
    assert not takes_connections("127.0.0.1", port)


def test_committed_rows_survive_kill_9_of_postgres(server: Postgres) -> None:
    """What was committed is there after a kill and a start on the same folder."""
    with psycopg.connect(server.start()) as connection:
        connection.execute("CREATE TABLE kept (value text)")
        connection.execute("INSERT INTO kept VALUES ('one')")
    server.kill()

    server.start()

    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT value FROM kept").fetchall() == [("one",)]


def test_postgres_refuses_a_wrong_password(server: Postgres) -> None:
    """Loopback is no trust: another user of the machine needs the password."""
    server.start()

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://tailrace:wrong@127.0.0.1:{server.port}/tailrace")


def test_postgres_password_is_for_its_owner_only(server: Postgres) -> None:
    """The secret lies in a 0700 folder, in a 0600 file, beside the data and not above it."""
    server.start()

    assert server.secrets_dir.stat().st_mode & 0o777 == 0o700
    assert (server.secrets_dir / "postgres").stat().st_mode & 0o777 == 0o600
    assert server.secrets_dir not in server.home.parents


def test_a_half_made_database_folder_is_made_anew(server: Postgres) -> None:
    """A kill in the middle of initdb leaves a draft, which the next start throws away."""
    draft = server.home / "data.new"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n", encoding="ascii")

    server.start()

    assert server.answers()
    assert not draft.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user for PostgreSQL")
def test_as_root_postgres_says_what_it_changes_outside_its_folder(tmp_path: Path) -> None:
    """A closed folder above is opened for passing through, and the user is told."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    notices: list[str] = []
    server = Postgres(closed / "postgres", notice=notices.append)

    server.prepare()

    assert closed.stat().st_mode & 0o777 == 0o701
    assert any(str(closed) in notice for notice in notices)


def _create_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(timeout=20)


def _append(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    errors: list[object] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _record: errors.append(error))
    assert producer.flush(20) == 0
    assert errors == [None] * len(values)


def _read(bootstrap: str, topic: str, *, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [record.value() for record in consumer.consume(count, timeout=20)]
    finally:
        consumer.close()
