"""The facts on `events`: one frozen class per kind, the only place that names their fields.

Every class has the common columns of `Event`; its own fields are the branch record of its kind in
the Avro schema (`schemas/avro/events.*.avsc`). A field that is added needs a default. Fields that
end in `_json` hold JSON text whose shape their docstring names; `occurred_at` and every `*_at`
are milliseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from schemas.fields import Millis
from schemas.late import dataclass


class Conclusion(StrEnum):
    """How a step, a job or a run ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    TIMED_OUT = "timed_out"


class Source(StrEnum):
    """What made a delivery."""

    WEBHOOK = "webhook"
    DISPATCH = "dispatch"
    CRON = "cron"
    RUN = "run"
    RECONCILE = "reconcile"


class Outcome(StrEnum):
    """What the planner says of one workflow file for one delivery."""

    PLANNED = "planned"
    REJECTED = "rejected"
    IGNORED = "ignored"


class Provider(StrEnum):
    """The forge that a repository lives on."""

    GITHUB = "github"
    GITEA = "gitea"
    GOGS = "gogs"
    GITLAB = "gitlab"
    GIT = "git"


#: The capability of a runner that can run containers.
CONTAINERS = "containers"

# --------------------------------------------------------------------------- parts of events


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanProblem:
    """One mistake in a workflow file, with where it is."""

    path: str
    line: int
    column: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowOutcome:
    """The planner's answer for one workflow file of a delivery.

    `plan_json` is `schemas.workflow.plan.plan_to_json`; `inputs_json` an object of the typed
    inputs. `sha` and `ref` are `GITHUB_SHA` and `GITHUB_REF` of the run. `uses` names every
    resolved remote reference as "owner/repo/path@ref=sha".
    """

    path: str
    outcome: str
    name: str = ""
    reason: str = ""
    plan_json: str | None = None
    problems: tuple[PlanProblem, ...] = ()
    event: str = ""
    sha: str = ""
    ref: str = ""
    inputs_json: str | None = None
    uses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """A node of a DAG before it ran; a matrix job is one node, and so is one that calls."""

    job_id: str
    key: str
    name: str
    needs: tuple[str, ...] = ()
    matrix: bool = False
    calls: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One leg of an expanded matrix; `matrix_json` is the object of its `matrix` context."""

    job_id: str
    name: str
    index: int
    matrix_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSegment:
    """One immutable piece of an archived log."""

    uri: str
    sha256: str
    first_line: int
    lines: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedWorkflow:
    """A workflow file at the head of the default branch; `triggers_json` is its `on`."""

    path: str
    name: str
    triggers_json: str
    problems: tuple[PlanProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A remark that a step made by a workflow command (`::error file=…::message`)."""

    level: str
    message: str
    path: str = ""
    line: int = 0
    end_line: int = 0
    column: int = 0
    end_column: int = 0
    title: str = ""
    step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGroup:
    """Lines that a step put together by `::group::`; the first of `lines` is the title's own.

    Groups are flat, as on GitHub: one ends at `::endgroup::`, where the next begins, or with its
    step. `first_line` counts from 0 within the attempt's log.
    """

    title: str
    first_line: int
    lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAttempt:
    """An attempt that a runner says it is executing."""

    job_id: str
    attempt: int


# --------------------------------------------------------------------------- the common columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event has: its identity, its cause and what it is about.

    `event_id` derives from what makes the fact unique, so a repeat has the same id. `caused_by`
    is the event_id of the cause. From `JobAssigned` on, (attempt, runner_id, boot_id) is the
    fencing token of a report.
    """

    event_id: str
    occurred_at: Millis = 0
    repository: str = ""
    run_id: str | None = None
    caused_by: str | None = None
    delivery_id: str | None = None
    job_id: str | None = None
    attempt: int | None = None
    runner_id: str | None = None
    boot_id: str | None = None


# --------------------------------------------------------------------------- deliveries and plans


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReceived(Event):
    """A webhook request, dispatch, cron tick, other run or reconciliation was accepted.

    `event` is GitHub's event name whatever the provider; `ref` is full (`refs/heads/main`). `sha`
    is the commit that determines everything that follows ("" for events without one).
    `payload_json` is the webhook's body as JSON in GitHub's shape where it triggers workflows;
    above 1 MiB `payload_uri` names it in the object store instead. `body_sha256` is of the raw
    bytes. `chain` counts the workflow_run deliveries that led to this one. `fork` says that a pull
    request of a fork is behind it, also by way of a run that it started. `merge_sha` is the
    commit by which a pull request was merged. `inert` (`code: sentence`) says why it can start
    nothing, whatever workflows list: `unreadable: …` is a signed body that isn't what its header
    says.

    Cron ticks and workflow_run deliveries are the scheduler's own decisions; all others are inputs.
    """

    source: str
    provider: str
    event: str
    action: str = ""
    ref: str = ""
    before: str = ""
    sha: str = ""
    base_ref: str = ""
    base_sha: str = ""
    head_ref: str = ""
    head_repository: str = ""
    fork: bool = False
    number: int = 0
    tag_name: str = ""
    deleted: bool = False
    merged: bool = False
    actor: str = ""
    message: str = ""
    default_branch: str = ""
    workflow: str = ""
    inputs_json: str | None = None
    schedule: str = ""
    payload_json: str | None = None
    payload_uri: str | None = None
    body_sha256: str = ""
    body_bytes: int = 0
    chain: int = 0
    merge_sha: str = ""
    inert: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPlanned(Event):
    """The planner read the commit and says what each workflow file makes of the delivery.

    `github_json` is the `github` context without `event`, `run_*`, `workflow*` and `job`, which
    the scheduler and the runner add.
    """

    workflows: tuple[WorkflowOutcome, ...]
    github_json: str = "{}"
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryIgnored(Event):
    """The delivery starts nothing; `reason` is a code, `detail` the sentence for people."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowsIndexed(Event):
    """The workflow files at the head of the default branch, read when it moves."""

    sha: str
    ref: str
    workflows: tuple[IndexedWorkflow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlanned(Event):
    """A run exists: one workflow for one delivery, numbered within its workflow.

    `fork` says that it runs code of a fork. `secrets_withheld` says why its jobs get no secrets and
    no token, "" when they do: `fork` for a fork's code, `fork_event` for a workflow of the base
    that a fork's pull request started.
    """

    workflow: str
    workflow_name: str
    run_name: str
    run_number: int
    run_attempt: int = 1
    event: str = ""
    sha: str = ""
    ref: str = ""
    head_ref: str = ""
    actor: str = ""
    message: str = ""
    number: int = 0
    fork: bool = False
    approval_required: bool = False
    jobs: tuple[PlannedJob, ...] = ()
    secrets_withheld: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRejected(Event):
    """A workflow file that should have run can't: every mistake with its line and column."""

    workflow: str
    workflow_name: str = ""
    run_number: int = 0
    reason: str = ""
    event: str = ""
    sha: str = ""
    ref: str = ""
    actor: str = ""
    problems: tuple[PlanProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunApproved(Event):
    """Someone let a waiting run start (a fork's pull request)."""

    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """Every job of the run is terminal."""

    conclusion: str
    reason: str = ""
    run_attempt: int = 1


# --------------------------------------------------------------------------- jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixExpanded(Event):
    """A matrix job became its legs, each a job of its own; `job_id` is the matrix job."""

    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCalled(Event):
    """The job's reusable workflow begins; `inputs_json` is the object of its typed inputs.

    `jobs` are the called workflow's own; callers among them bring theirs when they begin.
    """

    workflow: str
    inputs_json: str
    jobs: tuple[PlannedJob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobScheduled(Event):
    """The attempt entered its pool's queue; `capabilities` are what its runner must have."""

    name: str
    pool: str
    labels: tuple[str, ...]
    reason: str = "first"
    excluded_runners: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    environment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBlocked(Event):
    """The reason why the job is not running changed.

    `reason` is one of needs, approval, no_runner, no_engine, pool_full, max_parallel, group;
    `blockers` are the ids (jobs, runs, labels) that it waits for.
    """

    reason: str
    detail: str = ""
    blockers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAssigned(Event):
    """The attempt was given to one boot of one runner, with an accept deadline.

    `environment` is the evaluated name of the deployment environment whose secrets it may have.
    """

    pool: str
    lane: int
    accept_within_ms: int = 5_000
    environment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Event):
    """The runner accepted the assignment."""

    isolation: str = ""
    hostname: str = ""
    runner_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    """A step's process runs; `number` counts from 1 within the job, set-up steps included."""

    number: int
    name: str
    started_at: Millis = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """A step ended, or was skipped; `outcome` is before continue-on-error, `conclusion` after."""

    number: int
    name: str
    outcome: str
    conclusion: str
    exit_code: int | None = None
    started_at: Millis = 0
    finished_at: Millis = 0
    first_line: int = 0
    lines: int = 0
    reason: str = ""
    groups: tuple[LogGroup, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFinished(Event):
    """The attempt ended on its runner: the only event that frees its slot.

    `log_lines` and `log_sha256` are of the whole log, so that a hole is provable.
    """

    conclusion: str
    reason: str = ""
    message: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    started_at: Millis = 0
    finished_at: Millis = 0
    log_lines: int = 0
    log_sha256: str = ""
    summary: str = ""
    annotations: tuple[Annotation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSkipped(Event):
    """The job's condition did not hold; it never ran."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelled(Event):
    """The job's conclusion is cancelled; a running attempt has reported its end before this."""

    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed(Event):
    """The scheduler ends a job that no runner can: attempts used up, or a bad expression."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested(Event):
    """Someone or something asks that a run (or one of its jobs, by job_id) end."""

    actor: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentDeclined(Event):
    """The runner gives the assignment back without having begun it."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLost(Event):
    """The attempt's runner is gone; a JobFinished within the grace deadline still counts."""

    reason: str
    grace_ms: int = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleReport(Event):
    """A report came from an attempt that is not the live one and changed nothing."""

    report_id: str
    report_kind: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsReleased(Event):
    """The gateway answered an attempt's request for secrets: names, never values."""

    names: tuple[str, ...]
    refused: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactUploaded(Event):
    """An attempt left an artifact; the object `uri` lists its pieces, `sha256` is the file's.

    A later one of the same name takes its place: a run has one artifact of a name. From
    `expires_at` on nobody gets it any more, whether or not its bytes are removed yet (0: never).
    """

    name: str
    size_bytes: int
    sha256: str
    uri: str
    files: int = 0
    artifact_id: str = ""
    expires_at: Millis = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogArchived(Event):
    """The attempt's whole log is in the object store; the index of it is here."""

    segments: tuple[LogSegment, ...]
    lines: int
    size_bytes: int
    sha256: str
    complete: bool = True
    detail: str = ""


# --------------------------------------------------------------------------- runners, configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerJoined(Event):
    """A boot of a runner announced itself and waits for its welcome.

    `public_key` verifies what this boot asks the gateway: Ed25519, base64url without padding.
    `capabilities` are what its machine can do beside running processes: `CONTAINERS`.
    """

    pool: str
    labels: tuple[str, ...]
    slots: int
    lane: int
    name: str = ""
    isolation: str = ""
    version: str = ""
    hostname: str = ""
    running: tuple[RunningAttempt, ...] = ()
    public_key: str = ""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLost(Event):
    """The fleet counted too many ticks of silence (or the runner said goodbye)."""

    reason: str
    silent_ticks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerDismissed(Event):
    """The scheduler gave up on a boot: its leases are closed, it must start again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryConfigured(Event):
    """A repository was added or its settings changed.

    `fork_pull_requests` is approve, never or always. `pools` is the order in which its jobs look
    for a matching pool. `variables` are set with it, as by `VariableSet`.
    `fork_secrets` says whether workflows of the base that a fork's pull request starts get
    secrets (base) or not (never); code of a fork never does.
    """

    provider: str
    clone_url: str
    default_branch: str = "main"
    pools: tuple[str, ...] = ("default",)
    fork_pull_requests: str = "approve"
    variables: dict[str, str] = field(default_factory=dict)
    actor: str = ""
    fork_secrets: str = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryRemoved(Event):
    """The repository is no longer served; its history stays."""

    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfigured(Event):
    """A pool's labels and limits were set; `runner_id` columns are not used."""

    pool: str
    labels: tuple[str, ...]
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStarted(Event):
    """A scheduler took the cell; decisions that follow were made by this version."""

    version: str
    cell: int
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed(Event):
    """An armed deadline's time has come, by the scheduler's clock."""

    deadline_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableSet(Event):
    """A value of the `vars` context was set, by `actor`.

    It belongs to an environment of `repository`, to the repository (`environment` is ""), or to
    the whole installation (`repository` is "" too; every cell has the event). Upper-case `name`.
    """

    name: str
    value: str
    environment: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableRemoved(Event):
    """A value of the `vars` context is no more; scopes are those of `VariableSet`."""

    name: str
    environment: str = ""
    actor: str = ""


Kind = type[Event]

KINDS: tuple[Kind, ...] = (
    DeliveryReceived,
    DeliveryPlanned,
    DeliveryIgnored,
    WorkflowsIndexed,
    RunPlanned,
    RunRejected,
    RunApproved,
    RunFinished,
    MatrixExpanded,
    WorkflowCalled,
    JobScheduled,
    JobBlocked,
    JobAssigned,
    JobStarted,
    StepStarted,
    StepFinished,
    JobFinished,
    JobSkipped,
    JobCancelled,
    JobFailed,
    CancelRequested,
    AssignmentDeclined,
    AttemptLost,
    StaleReport,
    SecretsReleased,
    ArtifactUploaded,
    LogArchived,
    RunnerJoined,
    RunnerLost,
    RunnerDismissed,
    RepositoryConfigured,
    RepositoryRemoved,
    PoolConfigured,
    SchedulerStarted,
    DeadlinePassed,
    VariableSet,
    VariableRemoved,
)
