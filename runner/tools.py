"""What every attempt of a boot works with; made where the runner is wired."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from infra.clock import Clock
from infra.metrics import Meters
from runner.actions.remote import RemoteActions
from runner.depot import Depot
from runner.environment import RunnerFacts
from runner.executors.containers.engine import Engine
from runner.gateway_client import Gateway
from runner.identity import Identity
from runner.mirrors import Mirrors
from runner.patience import Patience
from runner.spool import Spool
from schemas.lanes import Assignment
from schemas.late import dataclass
from schemas.workflow.expressions.values import Value

OnSteps = Callable[[Assignment, Mapping[str, Value]], None]
"""Is told an attempt's `steps` context, masked, after its last step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """One boot's means; all of them may be used by several slots at once."""

    clock: Clock
    identity: Identity
    spool: Spool
    gateway: Gateway
    mirrors: Mirrors
    remote: RemoteActions
    depot: Callable[[Assignment, Patience], Depot]
    meters: Meters
    facts: RunnerFacts
    environment: Mapping[str, str]
    hostname: str
    engine: Engine | None = None
    on_steps: OnSteps | None = None
