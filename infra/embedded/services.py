"""Which processes make up the system: plain data, read by the supervisor."""

from __future__ import annotations

from dataclasses import dataclass

from infra.settings import Settings

RUNNER_PORT_USUAL = 8830


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Python process that answers /readyz; `python -m MODULE`, started again when it ends."""

    name: str
    module: str
    port_setting: str
    port: int
    copy: int = 1

    @property
    def port_is_setting(self) -> bool:
        """Tell whether `port` is the setting itself and not derived for a further copy."""
        return self.copy == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command that has to end well, after Kafka and PostgreSQL answer, before any service."""

    name: str
    arguments: tuple[str, ...]


STEPS = (
    Step(name="topics", arguments=("infra.topics",)),
    Step(name="migrate", arguments=("projector", "migrate")),
    Step(name="vault", arguments=("infra.vault",)),
)
"""Each is idempotent; they run beside each other."""


def services(settings: Settings) -> tuple[Service, ...]:
    """Return the services in the order in which they are shown; they start together."""
    schedulers = (
        Service(
            name=f"scheduler-{copy}",
            module="scheduler",
            port_setting="scheduler_port",
            port=settings.scheduler_port + copy - 1,
            copy=copy,
        )
        for copy in range(1, settings.scheduler_count + 1)
    )
    runner_port = settings.runner_port or RUNNER_PORT_USUAL
    runners = (
        Service(
            name=f"runner-{copy}",
            module="runner",
            port_setting="runner_port",
            port=runner_port + copy - 1,
            copy=copy,
        )
        for copy in range(1, settings.runner_count + 1)
    )
    return (
        _single("api", "projector.api", "public_port", settings),
        _single("ingest", "ingest", "ingest_port", settings),
        _single("planner", "ingest.planner", "planner_port", settings),
        *schedulers,
        _single("fleet", "scheduler.fleet", "fleet_port", settings),
        _single("projector", "projector", "projector_port", settings),
        _single("gateway", "runner.gateway", "gateway_port", settings),
        *runners,
    )


def _single(name: str, module: str, port_setting: str, settings: Settings) -> Service:
    port: int = getattr(settings, port_setting)
    return Service(name=name, module=module, port_setting=port_setting, port=port)
