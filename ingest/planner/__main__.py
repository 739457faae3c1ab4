"""`python -m ingest.planner`: wires the planner to Kafka, git, the vault and a health port."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import closing

from infra.clock import SystemClock
from infra.health import serve_health
from infra.kafka import KafkaLog, KafkaWriter
from infra.kafka_admin import Admin
from infra.log import AppendError
from infra.metrics import Meters
from infra.settings import Settings
from infra.telemetry import configure_logging
from infra.vault import Vault, VaultError
from ingest.mirrors import Mirrors
from ingest.planner.plan import Planner
from ingest.planner.service import PlannerService

logger = logging.getLogger(__name__)


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    settings = Settings.load()
    configure_logging(settings, "planner")
    name = settings.instance or "planner"
    clock, meters = SystemClock(), Meters()
    vault = Vault(settings.database_url, settings.secrets_dir, connections_max=2)

    def token_of(repository: str) -> str:
        try:
            return vault.forge_token(repository)
        except VaultError as error:
            # a public repository needs none; a private one says so when git is refused
            logger.warning("no forge token for %s: %s", repository, error)
            return ""

    def tell_default_branch(repository: str, branch: str) -> None:
        try:
            vault.set_default_branch(repository, branch)
        except VaultError as error:
            # only a dispatch without a ref notices
            logger.warning("new default branch of %s not kept: %s", repository, error)

    writer = KafkaWriter(settings.kafka_bootstrap, f"{name}-writer")
    writer.warm()
    service = PlannerService(
        log=KafkaLog(settings.kafka_bootstrap, f"{name}-reader"),
        writer=writer,
        mirrors=Mirrors(settings.home, meters, clock),
        planner=Planner(public_url=settings.public_url),
        token_of=token_of,
        clock=clock,
        meters=meters,
        cells=settings.cells,
        checkpoint_path=settings.home / "state" / "planner.json",
        log_id=Admin(settings.kafka_bootstrap).cluster_id(),
        tell_default_branch=tell_default_branch,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    with closing(serve_health(settings.planner_port, "planner", service.readiness)):
        try:
            service.run()
        finally:
            service.close()
            vault.close()
            try:
                writer.close(3_000)
            except AppendError as error:
                logger.warning("answers will be made again after the next start: %s", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
