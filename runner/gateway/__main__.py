"""The gateway: `python -m runner.gateway`. Wires the settings to `runner.gateway.app`."""

from __future__ import annotations

import logging
import sys

import uvicorn

from infra.auth import RUNNER_TOKEN_FILE, TokenFile
from infra.clock import SystemClock
from infra.kafka import UNHURRIED, KafkaReader, KafkaWriter
from infra.log import LogError
from infra.metrics import Meters
from infra.objects import open_store
from infra.settings import Settings
from infra.telemetry import configure_logging
from infra.vault import Vault
from runner.gateway.app import Means, make_app
from runner.gateway.follower import Follower
from runner.gateway.shelf import Limits
from runner.gateway.sweep import Sweeper

logger = logging.getLogger("runner.gateway")


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings.load()
    configure_logging(settings, "gateway")
    clock, meters = SystemClock(), Meters()
    name = settings.instance or "gateway"
    try:
        writer = KafkaWriter(settings.kafka_bootstrap, name)
        writer.warm(30_000)
    except LogError as error:
        logger.critical("%s", error)
        return 1
    token = TokenFile(settings.secrets_dir / RUNNER_TOKEN_FILE)
    token.ensure()
    vault = Vault(settings.database_url, settings.secrets_dir)

    def end() -> None:
        server.should_exit = True  # with an exit code that lets the supervisor start it again

    follower = Follower(
        KafkaReader(settings.kafka_bootstrap, name, tell_end=True, **UNHURRIED),
        cells=settings.cells,
        clock=clock,
        saved=settings.home / "gateway" / "leases.json",
        on_failed=end,
    )

    objects = open_store(settings.object_store)
    limits = Limits(
        artifact_days=settings.artifact_retention_days,
        cache_bytes=settings.cache_quota_mb * 1024**2,
        cache_unused_days=settings.cache_unused_days,
    )
    sweeper = Sweeper(objects, clock, limits)

    def close() -> None:
        sweeper.close()
        follower.close()
        writer.close(2_000)
        vault.close()

    app = make_app(
        Means(
            follower=follower,
            source=vault,
            objects=objects,
            writer=writer,
            token=token,
            clock=clock,
            meters=meters,
            cells=settings.cells,
            on_close=close,
            limits=limits,
            public_url=settings.public_url,
        )
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=settings.gateway_port,
            http="httptools",
            loop="uvloop",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
    )
    sweeper.start()
    server.run()
    return 0 if server.started and follower.failed is None else 1


if __name__ == "__main__":
    sys.exit(main())
