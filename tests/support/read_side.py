"""The read side in one process for tests: projector, archiver and API on topics of their own."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.auth import TokenFile
from infra.clock import SystemClock
from infra.kafka import KafkaReader, KafkaWriter
from infra.kafka_admin import Admin
from infra.log import Append
from infra.metrics import Meters
from infra.objects import ObjectStore, open_store
from infra.postgres import Connection, connect
from projector import store
from projector.archive import Archiver
from projector.shell import Projector
from schemas import events, topics
from schemas.streams import LogBatch
from schemas.topics import TopicSpec
from tests.support.eventually import eventually
from tests.support.histories import History, log_append, to_append

TOKEN = "test-token"
_numbers = itertools.count(1)


@dataclass(slots=True)
class ReadSide:
    """Topics, database and object store of one test, and what runs on them."""

    bootstrap: str
    database_url: str
    folder: Path
    prefix: str
    cells: int = 1
    writer: KafkaWriter = field(init=False)
    admin: Admin = field(init=False)

    def __post_init__(self) -> None:
        """Make the topics and the schema."""
        self.admin = Admin(self.bootstrap)
        big = {"max.message.bytes": str(topics.RECORD_BYTES_MAX)}
        self.admin.ensure_topics(
            [
                TopicSpec(name=self.events_topic, partitions=self.cells, settings=big),
                TopicSpec(name=self.logs_topic, partitions=topics.LOG_PARTITIONS, settings=big),
                TopicSpec(name=self.dead_letters_topic, partitions=1, settings=big),
            ]
        )
        store.migrate_schema(self.database_url)
        self.writer = KafkaWriter(self.bootstrap, f"{self.prefix}-writer", linger_ms=1)
        self.writer.warm()

    @property
    def events_topic(self) -> str:
        """This test's `events`."""
        return f"{self.prefix}-events"

    @property
    def logs_topic(self) -> str:
        """This test's `logs`."""
        return f"{self.prefix}-logs"

    @property
    def dead_letters_topic(self) -> str:
        """This test's `dead-letters`."""
        return f"{self.prefix}-dead-letters"

    @property
    def objects(self) -> ObjectStore:
        """This test's object store."""
        return open_store(f"file://{self.folder / 'objects'}")

    def connect(self) -> Connection:
        """Open a connection to the read models."""
        return connect(self.database_url, "test", schema=store.SCHEMA)

    def append(self, facts: Sequence[events.Event]) -> None:
        """Append events."""
        self.append_raw(
            [
                to_append(
                    event,
                    topic=self.events_topic,
                    partition=topics.cell_of(event.repository, self.cells),
                )
                for event in facts
            ]
        )

    def tell(self, history: History) -> None:
        """Append what the history has told since the last time, and wait for the tables."""
        self.append(history.events)
        history.events.clear()
        self.await_folded()

    def append_raw(self, records: Sequence[Append]) -> None:
        """Append records as they are."""
        self.writer.append_all(records, timeout_ms=60_000)

    def append_logs(self, batches: Sequence[LogBatch]) -> None:
        """Append log batches."""
        self.append_raw([log_append(batch, topic=self.logs_topic) for batch in batches])

    def projector(self, name: str = "projector", **options: int) -> Projector:
        """Return a projector on this test's topics."""
        return Projector(
            connect=self.connect,
            reader=KafkaReader(self.bootstrap, f"{self.prefix}-{name}-{next(_numbers)}"),
            dead_letters=self.writer,
            topic_id=self.admin.topic_id(self.events_topic),
            cells=self.cells,
            clock=SystemClock(),
            meters=Meters(),
            topic=self.events_topic,
            dead_letter_topic=self.dead_letters_topic,
            **options,
        )

    def archiver(self, name: str = "archiver", **options: int) -> Archiver:
        """Return an archiver on this test's topics."""
        return Archiver(
            connect=self.connect,
            reader=KafkaReader(self.bootstrap, f"{self.prefix}-{name}-{next(_numbers)}"),
            writer=self.writer,
            objects=self.objects,
            clock=SystemClock(),
            meters=Meters(),
            holder=name,
            topic_id=self.admin.topic_id(self.logs_topic),
            cells=self.cells,
            logs_topic=self.logs_topic,
            events_topic=self.events_topic,
            **options,
        )

    def ends(self) -> dict[int, int]:
        """Return the next offset of each cell."""
        reader = KafkaReader(self.bootstrap, f"{self.prefix}-ends")
        try:
            return {cell: reader.bounds(self.events_topic, cell)[1] for cell in range(self.cells)}
        finally:
            reader.close()

    def await_folded(self, timeout_ms: int = 30_000) -> None:
        """Wait until the tables know everything that was appended."""
        ends = {cell: end for cell, end in self.ends().items() if end}

        def folded() -> bool:
            with self.connect() as database:
                rows = database.execute(
                    "SELECT partition, next_offset FROM position WHERE topic = 'events'"
                ).fetchall()
            known = dict(rows)
            return all(known.get(cell, 0) >= end for cell, end in ends.items())

        eventually(folded, timeout_ms=timeout_ms, what="the fold of everything appended")

    def checksum(self) -> dict[str, tuple[int, str]]:
        """Return rows and checksum of every table."""
        with self.connect() as database:
            return store.checksum(database)


@contextlib.contextmanager
def read_side(
    bootstrap: str, database_url: str, folder: Path, *, cells: int = 1
) -> Iterator[ReadSide]:
    """Yield a read side with topics of its own; nothing runs yet."""
    prefix = f"test-{os.getpid()}-{next(_numbers)}-{os.urandom(2).hex()}"
    side = ReadSide(bootstrap, database_url, folder, prefix, cells)
    try:
        yield side
    finally:
        side.writer.close()


@contextlib.contextmanager
def running(*parts: Projector | Archiver) -> Iterator[None]:
    """Run parts in threads; an error in one fails the test."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def guarded(part: Projector | Archiver) -> None:
        try:
            part.run(stop)
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    if failed:
        raise failed[0]


@contextlib.contextmanager
def running_api(
    side: ReadSide, *, ingest_url: str = "http://127.0.0.1:9", token: str = TOKEN
) -> Iterator[str]:
    """Serve the API on a free port; yields its URL."""
    from projector.api.app import make_app
    from projector.api.server import Server
    from projector.api.services import Wiring

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    token_path = side.folder / "token"
    token_path.write_text(token)
    app = make_app(
        Wiring(
            database_url=side.database_url,
            make_reader=lambda name: KafkaReader(side.bootstrap, f"{side.prefix}-api-{name}"),
            objects=side.objects,
            token=TokenFile(token_path),
            clock=SystemClock(),
            meters=Meters(),
            public_url=url,
            public_port=port,
            ingest_url=ingest_url,
            logs_topic=side.logs_topic,
        )
    )
    server = Server(app, host="127.0.0.1", port=port)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, what="the API's start")
        yield url
    finally:
        server.should_exit = True
        thread.join(10)
