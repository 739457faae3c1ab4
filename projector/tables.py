"""The rows of the read models: one class a table, whose fields are the table's columns.

`migrations/*.sql` has the same columns; a test holds them together. Rows are changed in place
while a batch is folded, then written whole. Instants are milliseconds since the epoch, taken from
events: nothing here depends on when the projector ran.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any, ClassVar


class Status(StrEnum):
    """How far a run, job or step is; how it ended is its conclusion."""

    WAITING = "waiting"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    COMPLETED = "completed"


Key = tuple[Any, ...]


@dataclass(slots=True, kw_only=True)
class Row:
    """What every table has: its name and the columns of its primary key."""

    TABLE: ClassVar[str]
    KEY: ClassVar[tuple[str, ...]]

    def identity(self) -> Key:
        """Return the primary key."""
        return tuple([getattr(self, name) for name in self.KEY])  # a generator takes twice as long


@dataclass(slots=True, kw_only=True)
class Repository(Row):
    """A repository as last configured."""

    TABLE: ClassVar[str] = "repository"
    KEY: ClassVar[tuple[str, ...]] = ("name",)

    name: str
    provider: str = ""
    clone_url: str = ""
    default_branch: str = ""
    pools: list[str] = field(default_factory=list)
    fork_pull_requests: str = ""
    removed: bool = False
    indexed_sha: str = ""
    configured_at: int = 0
    cell: int = 0
    changed_offset: int = -1


@dataclass(slots=True, kw_only=True)
class Workflow(Row):
    """A workflow file that was indexed or that a run was made of.

    It is on the default branch while its `sha` is its repository's `indexed_sha`.
    """

    TABLE: ClassVar[str] = "workflow"
    KEY: ClassVar[tuple[str, ...]] = ("repository", "path")

    repository: str
    path: str
    name: str = ""
    triggers: Any = None
    problems: list[Any] = field(default_factory=list)
    sha: str = ""
    ref: str = ""
    indexed_at: int | None = None
    latest_run_id: str | None = None
    latest_run_number: int = 0
    changed_offset: int = -1


@dataclass(slots=True, kw_only=True)
class Delivery(Row):
    """A delivery and what became of it; `duplicates` counts repeats that changed nothing."""

    TABLE: ClassVar[str] = "delivery"
    KEY: ClassVar[tuple[str, ...]] = ("delivery_id",)

    delivery_id: str
    repository: str = ""
    status: str = "received"
    source: str = ""
    provider: str = ""
    event: str = ""
    action: str = ""
    ref: str = ""
    sha: str = ""
    number: int = 0
    fork: bool = False
    actor: str = ""
    message: str = ""
    workflow: str = ""
    reason: str = ""
    detail: str = ""
    outcomes: list[Any] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)
    duplicates: int = 0
    received_at: int | None = None
    planned_at: int | None = None
    cell: int = 0
    created_offset: int = 0
    changed_offset: int = -1


@dataclass(slots=True, kw_only=True)
class Run(Row):
    """One execution of one workflow for one delivery."""

    TABLE: ClassVar[str] = "run"
    KEY: ClassVar[tuple[str, ...]] = ("run_id",)

    run_id: str
    repository: str = ""
    workflow: str = ""
    workflow_name: str = ""
    run_name: str = ""
    run_number: int = 0
    run_attempt: int = 1
    event: str = ""
    ref: str = ""
    head_ref: str = ""
    sha: str = ""
    number: int = 0
    fork: bool = False
    actor: str = ""
    message: str = ""
    delivery_id: str | None = None
    status: str = Status.WAITING
    conclusion: str | None = None
    reason: str = ""
    problems: list[Any] = field(default_factory=list)
    approval: str = ""
    approved_by: str = ""
    cancel_requested_by: str = ""
    cancel_requested_at: int | None = None
    created_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    cell: int = 0
    created_offset: int = 0
    changed_offset: int = -1


@dataclass(slots=True, kw_only=True)
class Job(Row):
    """A node of a run's DAG, or a leg of its matrix; `expanded` nodes are stood for by legs."""

    TABLE: ClassVar[str] = "job"
    KEY: ClassVar[tuple[str, ...]] = ("job_id",)

    job_id: str
    run_id: str = ""
    repository: str = ""
    key: str = ""
    name: str = ""
    position: int = 0
    needs: list[str] = field(default_factory=list)
    matrix_of: str | None = None
    leg: int = 0
    matrix: Any = None
    expanded: bool = False
    status: str = Status.WAITING
    conclusion: str | None = None
    reason: str = ""
    message: str = ""
    blocked_reason: str | None = None
    blocked_detail: str = ""
    blockers: list[str] = field(default_factory=list)
    pool: str = ""
    labels: list[str] = field(default_factory=list)
    live_attempt: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    queued_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    changed_offset: int = -1


@dataclass(slots=True, kw_only=True)
class Attempt(Row):
    """One try at a job on one runner; (attempt, runner_id, boot_id) is its fencing token."""

    TABLE: ClassVar[str] = "attempt"
    KEY: ClassVar[tuple[str, ...]] = ("job_id", "attempt")

    job_id: str
    attempt: int
    run_id: str = ""
    repository: str = ""
    phase: str = "queued"
    pool: str = ""
    scheduled_because: str = ""
    queued_at: int | None = None
    assigned_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    lost_at: int | None = None
    runner_id: str | None = None
    boot_id: str | None = None
    runner_name: str = ""
    isolation: str = ""
    conclusion: str | None = None
    reason: str = ""
    message: str = ""
    log_lines: int = 0
    log_sha256: str = ""
    log_bytes: int = 0
    log_complete: bool | None = None
    log_detail: str = ""
    log_archived_offset: int | None = None
    changed_offset: int = -1


@dataclass(slots=True, kw_only=True)
class Step(Row):
    """A step of an attempt; `number` counts from 1."""

    TABLE: ClassVar[str] = "step"
    KEY: ClassVar[tuple[str, ...]] = ("job_id", "attempt", "number")

    job_id: str
    attempt: int
    number: int
    run_id: str = ""
    name: str = ""
    status: str = Status.RUNNING
    conclusion: str | None = None
    outcome: str | None = None
    exit_code: int | None = None
    reason: str = ""
    started_at: int | None = None
    finished_at: int | None = None
    first_line: int = 0
    lines: int = 0
    groups: list[Any] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Annotation(Row):
    """A remark that a step made; `ordinal` counts within the attempt."""

    TABLE: ClassVar[str] = "annotation"
    KEY: ClassVar[tuple[str, ...]] = ("job_id", "attempt", "ordinal")

    job_id: str
    attempt: int
    ordinal: int
    run_id: str = ""
    level: str = ""
    title: str = ""
    message: str = ""
    path: str = ""
    line: int = 0
    end_line: int = 0
    col: int = 0
    end_col: int = 0
    step: int = 0


@dataclass(slots=True, kw_only=True)
class Artifact(Row):
    """The newest artifact of a name in a run; `slot` is the name's sha256.

    Its bytes are in the object store; from `expires_at` on nobody gets them (0: never).
    """

    TABLE: ClassVar[str] = "artifact"
    KEY: ClassVar[tuple[str, ...]] = ("run_id", "slot")

    run_id: str
    slot: str
    artifact_id: str = ""
    repository: str = ""
    job_id: str = ""
    attempt: int = 0
    name: str = ""
    size_bytes: int = 0
    files: int = 0
    sha256: str = ""
    uri: str = ""
    created_at: int = 0
    expires_at: int = 0
    changed_offset: int = -1


@dataclass(slots=True, kw_only=True)
class LogSegment(Row):
    """One immutable piece of an archived log in the object store."""

    TABLE: ClassVar[str] = "log_segment"
    KEY: ClassVar[tuple[str, ...]] = ("job_id", "attempt", "first_line")

    job_id: str
    attempt: int
    first_line: int
    lines: int = 0
    uri: str = ""
    sha256: str = ""
    size_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class Runner(Row):
    """A runner's highest boot and what it offers."""

    TABLE: ClassVar[str] = "runner"
    KEY: ClassVar[tuple[str, ...]] = ("runner_id",)

    runner_id: str
    boot_id: str = ""
    pool: str = ""
    labels: list[str] = field(default_factory=list)
    slots: int = 0
    lane: int = 0
    name: str = ""
    isolation: str = ""
    version: str = ""
    hostname: str = ""
    status: str = "online"
    reason: str = ""
    joined_at: int | None = None
    gone_at: int | None = None
    changed_offset: int = -1


@dataclass(slots=True, kw_only=True)
class Pool(Row):
    """A pool's labels as last configured."""

    TABLE: ClassVar[str] = "pool"
    KEY: ClassVar[tuple[str, ...]] = ("name",)

    name: str
    labels: list[str] = field(default_factory=list)
    actor: str = ""
    configured_at: int = 0
    changed_offset: int = -1


@dataclass(slots=True, kw_only=True)
class Variable(Row):
    """A value of the `vars` context; `repository` and `environment` are "" where they don't count.

    One that was removed stays as a row without a value.
    """

    TABLE: ClassVar[str] = "variable"
    KEY: ClassVar[tuple[str, ...]] = ("repository", "environment", "name")

    repository: str
    environment: str
    name: str
    value: str = ""
    removed: bool = False
    actor: str = ""
    set_at: int = 0


@dataclass(slots=True, kw_only=True)
class TrailEntry(Row):
    """One event as the audit trail shows it: a pointer into the log and its compact data."""

    TABLE: ClassVar[str] = "event"
    KEY: ClassVar[tuple[str, ...]] = ("cell", "offset")

    cell: int
    offset: int
    event_id: str
    kind: str
    occurred_at: int = 0
    repository: str = ""
    run_id: str | None = None
    caused_by: str | None = None
    delivery_id: str | None = None
    job_id: str | None = None
    attempt: int | None = None
    runner_id: str | None = None
    boot_id: str | None = None
    data: Any = None


#: Tables whose rows are looked up and changed by later events. Order: what is pointed to first.
ENTITIES: tuple[type[Row], ...] = (
    Repository,
    Workflow,
    Delivery,
    Run,
    Job,
    Attempt,
    Step,
    Annotation,
    Artifact,
    LogSegment,
    Runner,
    Pool,
    Variable,
)
TABLES: tuple[type[Row], ...] = (*ENTITIES, TrailEntry)


def columns(table: type[Row]) -> tuple[str, ...]:
    """Return a table's columns, in order."""
    return tuple(column.name for column in fields(table))


def values_of(table: type[Row]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that takes a row of `table` apart into its columns' values."""
    return attrgetter(*columns(table))
