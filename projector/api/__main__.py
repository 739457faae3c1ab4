"""`python -m projector.api`: the public origin as a process."""

from __future__ import annotations

import signal
import sys
from typing import Any

from infra.auth import TOKEN_FILE, TokenFile
from infra.clock import SystemClock
from infra.kafka import KafkaReader
from infra.metrics import Meters
from infra.objects import open_store
from infra.settings import Settings, SettingsError
from infra.telemetry import configure_logging
from projector.api.app import make_app
from projector.api.server import Server
from projector.api.services import Wiring

#: Log blocks lie in the index of live logs; the client's own queue need not be large.
_READER_QUEUE_KB = 8_192


def main() -> int:
    """Serve until told to stop."""
    try:
        settings = Settings.load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings, "projector.api")
    client = settings.instance or "projector-api"
    token = TokenFile(settings.secrets_dir / TOKEN_FILE)
    token.ensure()
    # threads hand log batches to the loop: with the default of 5 ms a busy one holds them up
    sys.setswitchinterval(0.0005)

    def make_reader(name: str) -> KafkaReader:
        limits: dict[str, Any] = {"queued.max.messages.kbytes": _READER_QUEUE_KB}
        return KafkaReader(settings.kafka_bootstrap, f"{client}-{name}", **limits)

    app = make_app(
        Wiring(
            database_url=settings.database_url,
            make_reader=make_reader,
            objects=open_store(settings.object_store),
            token=token,
            clock=SystemClock(),
            meters=Meters(),
            public_url=settings.public_url,
            public_port=settings.public_port,
            ingest_url=settings.ingest_url,
            allow_hosts=settings.allow_hosts,
        )
    )
    server = Server(app, host=settings.public_host, port=settings.public_port)
    # uvicorn raises the signal again once it has stopped; ending on request is no failure
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
