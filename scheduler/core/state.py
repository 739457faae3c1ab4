"""What a cell knows: rows that the changelog keeps, and indexes that are derived from them.

Only `evolve` changes rows; each change names its row, so that the shell can write exactly what
changed. Finished runs leave the state.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

#: Raised with any change of the rows' shape or meaning: an older changelog is then refolded.
STATE_VERSION = 2

SEEN_DELIVERIES_MAX = 10_000

S = TypeVar("S")


class JobPhase(StrEnum):
    """Where a job stands; `legs` and `called` are jobs that became others, and end with them."""

    WAITING = "waiting"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    STARTED = "started"
    LOST = "lost"
    LEGS = "legs"
    CALLED = "called"
    DONE = "done"


#: Phases in which an attempt holds a slot, or may still report its end.
LIVE = frozenset({JobPhase.ASSIGNED, JobPhase.STARTED, JobPhase.LOST})

#: Phases that count for max-parallel.
ACTIVE = LIVE | {JobPhase.QUEUED, JobPhase.CALLED}


class Repository(msgspec.Struct, omit_defaults=True):
    """A repository's settings and the ring of its remembered deliveries."""

    name: str
    provider: str = ""
    clone_url: str = ""
    default_branch: str = "main"
    pools: tuple[str, ...] = ("default",)
    fork_pull_requests: str = "approve"
    fork_secrets: str = "never"
    removed: bool = False
    seen_next: int = 0


class Variables(msgspec.Struct, omit_defaults=True):
    """The variables of one scope by upper-case name; see `scheduler.core.variables`.

    `changed` has the times of the installation's last changes, removals among them.
    """

    values: dict[str, str] = {}
    changed: dict[str, int] = {}


class CronEntry(msgspec.Struct, omit_defaults=True):
    """One schedule of a workflow; `due` is the instant it is armed for, 0 when none will come.

    A row of its own, so that a tick reads and writes no other entry of the repository.
    """

    workflow: str
    cron: str
    timezone: str | None = None
    due: int = 0


class Listener(msgspec.Struct, omit_defaults=True):
    """A workflow_run trigger: which activities of which workflows (by name; none: all)."""

    types: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()


class Known(msgspec.Struct, omit_defaults=True):
    """What the default branch's workflows wait for, as last indexed; `crons` are rows' keys."""

    repository: str
    index_id: str
    sha: str
    ref: str
    crons: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()


class Outcome(msgspec.Struct, omit_defaults=True):
    """A workflow file's answer that is still to become a run, or a rejected one.

    `withheld` is one that the repository's setting for forks lets nobody act on.
    """

    path: str
    outcome: str
    name: str = ""
    reason: str = ""
    plan_json: str | None = None
    problems: tuple[tuple[str, int, int, str], ...] = ()
    event: str = ""
    sha: str = ""
    ref: str = ""
    inputs_json: str | None = None
    withheld: bool = False


class Delivery(msgspec.Struct, omit_defaults=True):
    """A delivery that is not answered yet, or whose turn has not come.

    One that is `closed` waits for nothing: it is kept until the planner's next answer about its
    repository, because a history that was decided under another rule for forks may still have runs
    of what it withholds.
    """

    delivery_id: str
    event_id: str
    repository: str
    occurred_at: int
    sequence: int = 0
    event: str = ""
    actor: str = ""
    message: str = ""
    head_ref: str = ""
    number: int = 0
    fork: bool = False
    ref: str = ""
    sha: str = ""
    payload_json: str | None = None
    payload_uri: str | None = None
    chain: int = 0
    answered: bool = False
    error: str = ""
    github_json: str = "{}"
    outcomes: tuple[Outcome, ...] = ()
    ignored: tuple[str, ...] = ()
    handled: int = 0
    closed: bool = False


class Run(msgspec.Struct, omit_defaults=True):
    """A run with at least one job that is not terminal.

    `jobs` are those of its own workflow; their legs and called jobs hang on them.
    """

    run_id: str
    repository: str
    delivery_id: str
    workflow: str
    run_number: int
    planned_id: str
    run_attempt: int = 1
    fork: bool = False
    secrets_withheld: str = ""
    awaits_approval: bool = False
    told_progress: bool = False
    cancel: str = ""
    cancel_actor: str = ""
    open_jobs: int = 0
    outputs_bytes: int = 0
    jobs: list[str] = []


class Plan(msgspec.Struct, omit_defaults=True):
    """What never changes in a run's life: written once, apart from what does."""

    run_id: str
    plan_json: str
    github_json: str = "{}"
    inputs_json: str | None = None
    payload_json: str | None = None
    payload_uri: str | None = None
    event: str = ""
    sha: str = ""
    ref: str = ""
    actor: str = ""
    workflow_name: str = ""
    run_name: str = ""
    head_ref: str = ""
    head_sha: str = ""
    number: int = 0
    from_fork: bool = False
    chain: int = 0


class Job(msgspec.Struct, omit_defaults=True):
    """A job, a matrix job, a leg or a caller; `result` is what `needs` of others see.

    `parent` is the matrix job of a leg, `caller` the job that called the workflow this one is in.
    """

    job_id: str
    run_id: str
    key: str
    name: str
    phase: JobPhase = JobPhase.WAITING
    attempt: int = 0
    parent: str | None = None
    caller: str | None = None
    called: list[str] = []
    inputs_json: str | None = None
    leg: int = 0
    legs: list[str] = []
    matrix_json: str | None = None
    pool: str = ""
    labels: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    environment: str = ""
    sequence: int = 0
    runner_id: str | None = None
    boot_id: str | None = None
    conclusion: str = ""
    result: str = ""
    tolerated: bool = False
    outputs: dict[str, str] = {}
    cancel: str = ""
    cancel_actor: str = ""
    blocked: str = ""
    losses: int = 0
    excluded: list[str] = []
    last_event: str = ""


class Runner(msgspec.Struct, omit_defaults=True):
    """The highest boot of a runner; `leases` maps job_id to attempt."""

    runner_id: str
    boot_id: str
    pool: str
    labels: tuple[str, ...]
    slots: int
    lane: int
    name: str = ""
    capabilities: tuple[str, ...] = ()
    live: bool = True
    leases: dict[str, int] = {}


class Pool(msgspec.Struct, omit_defaults=True):
    """A pool's configuration."""

    name: str
    labels: tuple[str, ...] = ()


class Counter(msgspec.Struct):
    """A number that only grows: a workflow's runs, or the cell's queue order."""

    value: int = 0


class Remembered(msgspec.Struct):
    """A delivery id in its repository's ring, or the head of a pull request."""

    value: str


class Armed(msgspec.Struct):
    """A deadline that the core waits for.

    It passes `delay_ms` after it was armed, or at `at_ms` (since the epoch) where that is not 0.
    `schedule` is the key of the cron entry whose tick it is.
    `due_at` (0 for not yet known) is the shell's alone: it sets it when it commits, and no rule
    reads it.
    """

    deadline_id: str
    delay_ms: int
    caused_by: str
    subject: str
    repository: str = ""
    run_id: str | None = None
    at_ms: int = 0
    due_at: int = 0
    schedule: str = ""


class Table(Generic[S]):
    """Rows of one type by key, with the keys that changed since the last commit."""

    def __init__(self, prefix: str, row_type: type[S]) -> None:
        """Start empty; `prefix` begins the rows' keys in the changelog."""
        self.prefix = prefix
        self.row_type = row_type
        self.rows: dict[str, S] = {}
        self.changed: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __iter__(self) -> Iterator[S]:
        return iter(self.rows.values())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: str) -> S:
        return self.rows[key]

    def get(self, key: str | None) -> S | None:
        """Return the row, or None."""
        return None if key is None else self.rows.get(key)

    def put(self, key: str, row: S) -> None:
        """Set a row (also one that was changed in place)."""
        self.rows[key] = row
        self.changed.add(key)

    def drop(self, key: str) -> None:
        """Remove a row."""
        if self.rows.pop(key, None) is not None:
            self.changed.add(key)


class State:
    """All rows of a cell. Derived indexes are in `scheduler.core.index`."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.repositories = Table("repository", Repository)
        self.deliveries = Table("delivery", Delivery)
        self.runs = Table("run", Run)
        self.plans = Table("plan", Plan)
        self.jobs = Table("job", Job)
        self.runners = Table("runner", Runner)
        self.pools = Table("pool", Pool)
        self.counters = Table("counter", Counter)
        self.seen = Table("seen", Remembered)
        self.heads = Table("head", Remembered)
        self.armed = Table("armed", Armed)
        self.known = Table("known", Known)
        self.crons = Table("cron", CronEntry)
        self.variables = Table("variables", Variables)

    @property
    def tables(self) -> tuple[Table[msgspec.Struct], ...]:
        """Every table, in a fixed order."""
        return (
            self.repositories, self.deliveries, self.runs, self.plans, self.jobs, self.runners,
            self.pools, self.counters, self.seen, self.heads, self.armed,
            self.known, self.crons, self.variables,
        )  # type: ignore[return-value]  # fmt: skip

    def next_number(self, name: str) -> int:
        """Return what the counter will be after one more; only evolve stores it."""
        counter = self.counters.get(name)
        return 1 if counter is None else counter.value + 1

    def count(self, name: str) -> int:
        """Move a counter on by one and return it; for evolve alone."""
        number = self.next_number(name)
        self.counters.put(name, Counter(number))
        return number

    def arm(self, armed: Armed) -> None:
        """Wait for a deadline; an id that was armed before keeps its instant."""
        if armed.deadline_id not in self.armed:
            self.armed.put(armed.deadline_id, armed)

    def disarm(self, deadline_id: str) -> None:
        """Wait no longer."""
        self.armed.drop(deadline_id)


def dump_changes(state: State) -> list[tuple[str, bytes | None]]:
    """Return (key, JSON or None for a row that is gone) of all that changed; sorted."""
    encode = msgspec.json.encode
    changes: list[tuple[str, bytes | None]] = []
    for table in state.tables:
        for key in sorted(table.changed):
            row = table.rows.get(key)
            changes.append((f"{table.prefix}/{key}", None if row is None else encode(row)))
    return changes


def forget_changes(state: State) -> None:
    """What changed so far is committed."""
    for table in state.tables:
        table.changed.clear()


def load_row(state: State, key: str, value: bytes) -> None:
    """Put one changelog row back; KeyError for a table that this version does not have."""
    prefix, _, name = key.partition("/")
    table = next((table for table in state.tables if table.prefix == prefix), None)
    if table is None:
        raise KeyError(f"changelog row {key!r} belongs to no table of this version")
    table.rows[name] = msgspec.json.decode(value, type=table.row_type)
