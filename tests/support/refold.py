"""Folding an installation's whole log into an empty database beside the live one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from infra.clock import SystemClock
from infra.kafka import KafkaReader, KafkaWriter
from infra.kafka_admin import Admin
from infra.metrics import Meters
from infra.postgres import Connection, connect
from projector import store
from projector.shell import Projector
from schemas.topics import EVENTS
from tests.support.eventually import eventually

Checksums = dict[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Refold:
    """What folding again gave: rows and checksum by table, records read, seconds."""

    live: Checksums
    again: Checksums
    records: int
    seconds: float


def fold_again(record: dict[str, Any], database: str = "refold") -> Refold:
    """Fold `events` from offset 0 into a new database and compare it with the live one.

    `record` holds the installation's addresses; nothing may be appended meanwhile.
    """
    bootstrap, live_url = record["kafka_bootstrap"], record["database_url"]
    with psycopg.connect(live_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {database}".encode())
        connection.execute(f"CREATE DATABASE {database}".encode())
    url = f"{live_url.rpartition('/')[0]}/{database}"
    store.migrate_schema(url)
    admin = Admin(bootstrap)
    cells = admin.partitions(EVENTS)
    reader = KafkaReader(bootstrap, "refold")
    writer = KafkaWriter(bootstrap, "refold")
    ends = {cell: reader.bounds(EVENTS, cell)[1] for cell in range(cells)}

    def open_database() -> Connection:
        return connect(url, "refold", schema=store.SCHEMA)

    projector = Projector(
        connect=open_database,
        reader=reader,
        dead_letters=writer,
        topic_id=admin.topic_id(EVENTS),
        cells=cells,
        clock=SystemClock(),
        meters=Meters(),
    )
    stop = threading.Event()
    thread = threading.Thread(target=projector.run, args=(stop,))
    began = time.perf_counter()
    thread.start()
    try:
        # the last offsets may be markers of transactions, which no reader sees
        eventually(
            lambda: (
                all(cell.next_offset >= ends[cell.number] - 1 for cell in projector.cells)
                and len(projector.cells) == cells
            ),
            what="everything is folded",
            timeout_ms=600_000,
        )
        seconds = time.perf_counter() - began
    finally:
        stop.set()
        thread.join()
        reader.close()
        writer.close()
    with connect(live_url, "refold", schema=store.SCHEMA) as live, open_database() as again:
        return Refold(store.checksum(live), store.checksum(again), sum(ends.values()), seconds)
