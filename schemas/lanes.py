"""What travels on a pool's lanes: orders of the scheduler to one boot of one runner.

A runner acts on a record only if (runner_id, boot_id) are its own.
"""

from __future__ import annotations

from schemas.late import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRecord:
    """What every order has; `order_id` is the event_id of the decision behind it."""

    order_id: str
    runner_id: str
    boot_id: str
    job_id: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome(LaneRecord):
    """The scheduler knows this boot; assignments may follow."""

    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismissed(LaneRecord):
    """This boot is ignored for ever: kill its jobs, start again with a higher boot_id."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment(LaneRecord):
    """A whole job: a runner needs nothing else but the gateway for its secrets.

    `job_json` is the JobPlan of `schemas.workflow.plan` as JSON; `contexts_json` an object with
    the contexts github (with `event` unless `payload_uri` names it), needs, matrix, strategy,
    inputs, vars, the workflow's `env`, and `secret_maps`: how callers of a reusable workflow hand
    secrets on, the nearest first (`schemas.workflow.secrets.secrets_inside`). `secrets` are names
    of the repository's. `events_partition` is the cell to which reports go; `position` the offset
    of the assignment's cause in it.
    """

    repository: str
    run_id: str
    delivery_id: str | None
    name: str
    job_json: str
    contexts_json: str
    secrets: tuple[str, ...] = ()
    secrets_allowed: bool = True
    payload_uri: str | None = None
    events_partition: int = 0
    position: int = 0
    exclusive: bool = False
    timeout_ms: int = 21_600_000
    accept_within_ms: int = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw(LaneRecord):
    """Decline the assignment if it has not begun; ignore this if it has."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder(LaneRecord):
    """End the attempt: interrupt, grace, kill."""

    reason: str = ""
    grace_ms: int = 10_000


LANE_KINDS: tuple[type[LaneRecord], ...] = (Welcome, Dismissed, Assignment, Withdraw, CancelOrder)
