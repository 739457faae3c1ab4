"""What every attempt of a boot works with; made where the runner is wired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.clock import Clock
from infra.metrics import Meters
from runner.environment import RunnerFacts
from runner.folders import Cleaner
from runner.gateway_client import GatewayClient
from runner.guards import JobUser
from runner.identity import Identity
from runner.mirrors import Mirrors
from runner.spool import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """One boot's means; all of them may be used by several slots at once."""

    clock: Clock
    identity: Identity
    spool: Spool
    gateway: GatewayClient
    cleaner: Cleaner
    mirrors: Mirrors
    meters: Meters
    facts: RunnerFacts
    environment: Mapping[str, str]
    tool_cache: Path
    hostname: str


@dataclass(frozen=True, slots=True)
class Seat:
    """What belongs to one slot for good: whom its jobs run as, and where."""

    number: int
    user: JobUser | None
    work: Path
