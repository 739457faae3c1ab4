"""`python -m projector`: events and logs into read models; `python -m projector migrate`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import Any

import psycopg

from infra.clock import SystemClock
from infra.health import serve_health
from infra.kafka import UNHURRIED, KafkaReader, KafkaWriter
from infra.kafka_admin import Admin
from infra.log import LogError
from infra.metrics import Meters
from infra.objects import open_store
from infra.postgres import Connection, DatabaseError, connect
from infra.settings import Settings, SettingsError
from infra.telemetry import configure_logging
from projector import store
from projector.archive import Archiver
from projector.shell import Projector
from schemas.topics import EVENTS, LOGS

logger = logging.getLogger("projector")

_USAGE = "usage: python -m projector [migrate]\n"
_MIGRATE_TRIES = 30


def main(arguments: list[str]) -> int:
    """Migrate, or fold until told to stop."""
    if arguments not in ([], ["migrate"]):
        sys.stderr.write(_USAGE)
        return 2
    try:
        settings = Settings.load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings, "projector")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        _migrate(settings, stop)
        return 0 if arguments else _project(settings, stop)
    except (LogError, DatabaseError, store.OtherTopicError) as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        return 1


def _migrate(settings: Settings, stop: threading.Event) -> None:
    for attempt in range(_MIGRATE_TRIES):
        try:
            for name in store.migrate_schema(settings.database_url):
                logger.info("applied migration %s", name)
        except psycopg.OperationalError as error:
            if attempt == _MIGRATE_TRIES - 1 or stop.wait(1):
                raise DatabaseError(f"PostgreSQL does not answer: {error}") from error
        else:
            return


def _project(settings: Settings, stop: threading.Event) -> int:
    client = settings.instance or "projector"
    meters, clock = Meters(), SystemClock()
    admin = Admin(settings.kafka_bootstrap)
    cells = admin.partitions(EVENTS)
    writer = KafkaWriter(settings.kafka_bootstrap, client)
    writer.warm()
    limits: dict[str, Any] = {**UNHURRIED, "queued.max.messages.kbytes": 16_384}
    readers = [
        KafkaReader(settings.kafka_bootstrap, f"{client}-{name}", **limits)
        for name in ("events", "logs")
    ]  # fmt: skip

    def open_database() -> Connection:
        return connect(settings.database_url, client, schema=store.SCHEMA)

    projector = Projector(
        connect=open_database,
        reader=readers[0],
        dead_letters=writer,
        topic_id=admin.topic_id(EVENTS),
        cells=cells,
        clock=clock,
        meters=meters,
    )
    archiver = Archiver(
        connect=open_database,
        reader=readers[1],
        writer=writer,
        objects=open_store(settings.object_store),
        clock=clock,
        meters=meters,
        holder=client,
        topic_id=admin.topic_id(LOGS),
        cells=cells,
        partitions=admin.partitions(LOGS),
    )
    lag_reader = KafkaReader(settings.kafka_bootstrap, f"{client}-lag")

    def ready() -> dict[str, object]:
        ends = {cell.number: lag_reader.bounds(EVENTS, cell.number)[1] for cell in projector.cells}
        lag = sum(max(0, ends[cell.number] - cell.next_offset) for cell in projector.cells)
        found = projector.readiness()
        if archiver.trouble and found["status"] == "ok":
            found |= {"status": "degraded", "trouble": archiver.trouble}
        return {**found, "lag": lag}

    failed: list[BaseException] = []
    with serve_health(settings.projector_port, "projector", ready) as _:
        threads = [
            threading.Thread(target=_guarded, args=(part.run, stop, failed), name=name)
            for name, part in (("events", projector), ("archive", archiver))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for reader in (*readers, lag_reader):
            reader.close()
        writer.close()
    for error in failed:
        logger.error("the projector ends: %s", error, exc_info=error)
    return 1 if failed else 0


def _guarded(run: object, stop: threading.Event, failed: list[BaseException]) -> None:
    """Run one part; what it can't wait out ends the process, for the supervisor to start again."""
    try:
        run(stop)  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001 - reported and ends the process
        failed.append(error)
        stop.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
