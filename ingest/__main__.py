"""`python -m ingest`: wires webhooks and commands to Kafka, the vault and an HTTP port."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping
from typing import Any

import uvicorn

from infra.auth import TOKEN_FILE, TokenFile
from infra.clock import SystemClock
from infra.kafka import KafkaWriter
from infra.log import AppendError
from infra.metrics import Meters
from infra.objects import open_store
from infra.settings import Settings
from infra.telemetry import configure_logging
from infra.vault import Vault
from ingest.app import create_app
from ingest.commands import Commands
from ingest.hooks import Hooks
from ingest.keys import WebhookKeys
from ingest.log import EventLog
from ingest.mirrors import Mirrors
from ingest.planner.workflows import Workflows
from ingest.routes import Webhooks

logger = logging.getLogger(__name__)

BUSY_LINGER_MS = 2


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings.load()
    configure_logging(settings, "ingest")
    clock, meters = SystemClock(), Meters()
    vault = Vault(settings.database_url, settings.secrets_dir)
    name = settings.instance or "ingest"
    writer = KafkaWriter(settings.kafka_bootstrap, name)
    batching = KafkaWriter(settings.kafka_bootstrap, f"{name}-batching", linger_ms=BUSY_LINGER_MS)
    for each in (writer, batching):
        each.warm()
    log = EventLog(writer, cells=settings.cells, batching_writer=batching)
    keys = WebhookKeys(vault, clock)
    mirrors = Mirrors(settings.home, meters, clock)
    token = TokenFile(settings.secrets_dir / TOKEN_FILE)
    token.ensure()

    def readiness() -> Mapping[str, Any]:
        # without PostgreSQL webhooks go on, commands do not: degraded is shown, not failed
        status = "ok" if keys.is_loaded else "starting"
        return {"status": status, "lag": 0, "vault": "ok" if keys.is_current else "away"}

    app = create_app(
        webhooks=Webhooks(keys, log, open_store(settings.object_store), clock, meters),
        commands=Commands(
            vault=vault,
            keys=keys,
            log=log,
            mirrors=mirrors,
            workflows=Workflows(),
            hooks=Hooks(runs_url=f"{settings.public_url}/"),
            clock=clock,
            public_url=settings.public_url,
        ),
        keys=keys,
        token=token,
        readiness=readiness,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=settings.ingest_port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=3,
            backlog=1024,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again after its own orderly stop: what follows must still run
        signal.signal(number, lambda *_: None)
    server.run()
    mirrors.close()
    vault.close()
    for each in (writer, batching):
        try:
            each.close(2_000)
        except AppendError as error:
            logger.warning("some deliveries were not acknowledged: %s", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
