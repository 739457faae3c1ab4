"""A runner: `python -m runner`. Wires the settings to `runner.service` and nothing else."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from infra.auth import RUNNER_TOKEN_FILE, TokenFile
from infra.clock import SystemClock
from infra.health import HealthServer
from infra.kafka import KafkaReader, KafkaWriter
from infra.log import LogError
from infra.metrics import Meters
from infra.settings import Settings
from infra.telemetry import configure_logging
from runner.environment import RunnerFacts, inherited
from runner.executors.containers.engine import detect
from runner.executors.host import ISOLATION_PROCESS, ISOLATION_USER
from runner.gateway_client import GatewayClient
from runner.identity import RunnerRunsError, architecture, runner_name
from runner.service import FatalError, Runner, RunnerConfig
from runner.users import JobUserError

logger = logging.getLogger("runner")


def config_of(settings: Settings) -> RunnerConfig:
    """Return what this process's runner is told."""
    instance = settings.instance or "runner"
    name = runner_name(settings.runner_id, instance)
    folder = settings.home / "runner" / instance
    in_environment = sys.prefix != sys.base_prefix
    own_programs = str(Path(sys.prefix) / "bin") if in_environment else None
    environment = inherited(os.environ, own_programs=own_programs)
    token = TokenFile(settings.secrets_dir / RUNNER_TOKEN_FILE)
    return RunnerConfig(
        name=name,
        instance=instance,
        folder=folder,
        mirrors=settings.home / "runner" / "mirrors",
        actions_url=settings.actions_url,
        tool_cache=settings.home / "runner" / "tools",
        pool=settings.runner_pool,
        labels=settings.runner_labels,
        slots=settings.runner_slots,
        job_user=settings.job_user,
        gateway=lambda identity: GatewayClient(
            settings.gateway_url, lambda: token.read().decode(), identity, SystemClock()
        ),
        environment=environment,
        facts=RunnerFacts(
            name=name, arch=architecture(), retention_days=settings.artifact_retention_days
        ),
        hostname=socket.gethostname(),
        version=metadata.version("tailrace"),
        engine=lambda: detect(
            settings.container_engine,
            os.environ,
            any_options=settings.container_options == "any",
        ),
        isolation=ISOLATION_USER if os.geteuid() == 0 else ISOLATION_PROCESS,
    )


REPORT_LINGER_MS = 3


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    settings = Settings.load()
    configure_logging(settings, "runner")
    config = config_of(settings)
    bootstrap = settings.kafka_bootstrap

    def make_writer() -> KafkaWriter:
        overrides: dict[str, Any] = {
            # never given up by itself: order and patience are the spool's promise
            "message.timeout.ms": 0,
            # blocks of lines are compressed already, and single events gain nothing
            "compression.type": "none",
        }
        # reports of slots that run side by side travel together; no job's start waits for one
        writer = KafkaWriter(bootstrap, config.name, linger_ms=REPORT_LINGER_MS, **overrides)
        try:
            writer.warm()
        except LogError as error:
            logger.warning("starting while Kafka is away: %s", error)
        return writer

    try:
        runner = Runner(
            config,
            make_reader=lambda: KafkaReader(bootstrap, config.name),
            make_writer=make_writer,
            clock=SystemClock(),
            meters=Meters(),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: runner.stop())
        with HealthServer(settings.runner_port, runner.readiness, "runner"):
            runner.run()
    except (RunnerRunsError, JobUserError, FatalError, LogError) as error:
        logger.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
