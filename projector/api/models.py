"""The shapes of the API's answers, for OpenAPI alone: answers are made in SQL, not through these.

A test asks a running API and holds its answers to these models.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_MS = "Milliseconds since the epoch."
Status = Literal["waiting", "queued", "assigned", "running", "completed"]
Conclusion = Literal["success", "failure", "cancelled", "skipped", "timed_out"]


class Model(BaseModel):
    """What all answers have: no field that is not named here."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = Field(examples=["urn:tailrace:problem:no-such-run"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no run 20260131-5f0c2a9b7d31."])


class Run(Model):
    """One execution of one workflow for one delivery."""

    run_id: str = Field(examples=["20260131-5f0c2a9b7d31"])
    repository: str = Field(examples=["acme/widgets"])
    workflow: str = Field(examples=[".github/workflows/ci.yml"])
    workflow_name: str = Field(examples=["CI"])
    run_name: str = Field(examples=["Tighten the lid"])
    run_number: int = Field(description="Counts the workflow's runs.", examples=[17])
    run_attempt: int = Field(description="1, and one more for each re-run.", examples=[1])
    event: str = Field(examples=["push"])
    ref: str = Field(examples=["refs/heads/main"])
    head_ref: str
    sha: str = Field(examples=["c0ffee254729296a45a3885639ac7e10f9d54979"])
    number: int = Field(description="The pull request's number, else 0.")
    fork: bool = Field(description="Whether it comes from a fork's pull request.")
    actor: str = Field(examples=["ada"])
    message: str = Field(description="The commit's message.")
    status: Status
    conclusion: Conclusion | None
    reason: str = Field(description="Why it ended so.", examples=["user.exit_code"])
    approval: Literal["required", "approved"] | None
    approved_by: str | None
    cancel_requested_by: str | None
    cancel_requested_at: int | None = Field(description=_MS)
    created_at: int = Field(description=_MS, examples=[1769817600000])
    started_at: int | None = Field(description=_MS)
    finished_at: int | None = Field(description=_MS)
    delivery_id: str | None
    changed_offset: int = Field(description="Offset of the event that changed it last.")
    url: str = Field(description="Its page.")


class AttemptLog(Model):
    """What is known of an attempt's log."""

    lines: int
    complete: bool = Field(description="Archived, with every line that the runner counted.")
    sha256: str | None = Field(description="Of all lines, each ended by a newline.")
    archived: bool
    size_bytes: int
    detail: str | None = Field(description="What is missing, when it is not complete.")


class Attempt(Model):
    """One try at a job on one runner."""

    attempt: int
    phase: Literal["queued", "assigned", "started", "lost", "ended"]
    queued_at: int | None = Field(description=_MS)
    assigned_at: int | None = Field(description=_MS)
    started_at: int | None = Field(description=_MS)
    finished_at: int | None = Field(description=_MS)
    runner_id: str | None
    boot_id: str | None
    runner_name: str | None
    pool: str
    isolation: str | None
    scheduled_because: str = Field(examples=["first"])
    conclusion: Conclusion | None
    reason: str
    message: str | None
    log: AttemptLog


class Step(Model):
    """A step of a job's attempt."""

    number: int
    name: str
    status: Status
    conclusion: Conclusion | None
    outcome: Conclusion | None = Field(description="Before continue-on-error.")
    exit_code: int | None
    reason: str | None
    started_at: int | None = Field(description=_MS)
    finished_at: int | None = Field(description=_MS)
    first_line: int = Field(description="Of the log, counted from 0.")
    lines: int


class Blocked(Model):
    """Why a job is not running."""

    reason: str = Field(examples=["pool_full"])
    detail: str = Field(examples=["pool default: 8 of 8 slots in use"])
    blockers: list[str]


class JobAnnotation(Model):
    """A remark that a step made."""

    attempt: int
    level: str
    title: str
    message: str
    path: str
    line: int
    end_line: int
    column: int
    end_column: int
    step: int


class Job(Model):
    """A node of the run's DAG, or a leg of its matrix."""

    job_id: str = Field(examples=["20260131-5f0c2a9b7d31.build"])
    run_id: str
    key: str = Field(examples=["build"])
    name: str
    needs: list[str]
    matrix: Any = Field(description="The leg's `matrix` context.", examples=[{"os": "linux"}])
    matrix_of: str | None
    status: Status
    conclusion: Conclusion | None
    reason: str
    message: str | None
    blocked: Blocked | None
    pool: str | None
    labels: list[str]
    live_attempt: int | None
    queued_at: int | None = Field(description=_MS)
    started_at: int | None = Field(description=_MS)
    finished_at: int | None = Field(description=_MS)
    outputs: dict[str, str]
    summary: str | None
    attempts: list[Attempt]
    steps: list[Step] = Field(description="Of the live attempt, or of the one asked for.")
    annotations: list[JobAnnotation]


class JobDetail(Job):
    """A job by itself."""

    repository: str
    as_of: int


class Artifact(Model):
    """A file that a job left."""

    artifact_id: str = Field(examples=["5b0f3a1c9e7d4f60b2a8c1d3e5f70912"])
    run_id: str = Field(examples=["20260131-5f0c2a9b7d31"])
    repository: str = Field(examples=["acme/widgets"])
    job_id: str = Field(examples=["20260131-5f0c2a9b7d31.build"])
    job: str = Field(description="The job's name.", examples=["build"])
    attempt: int = Field(examples=[1])
    name: str = Field(examples=["coverage"])
    size_bytes: int = Field(description="Of the zip.", examples=[48_231])
    files: int = Field(examples=[12])
    sha256: str = Field(description="Of the zip.", examples=["9f86d081884c7d65" * 4])
    created_at: int = Field(description=_MS, examples=[1769817600000])
    expires_at: int | None = Field(description=_MS, examples=[1777593600000])
    expired: bool = Field(description="It can't be downloaded any more.")
    url: str
    download_url: str


class ArtifactDetail(Artifact):
    """An artifact by itself."""

    as_of: int


class Variable(Model):
    """A value of the `vars` context."""

    name: str = Field(examples=["REGION"])
    value: str = Field(examples=["eu-west-1"])
    set_at: int
    actor: str


class VariableList(Model):
    """The variables of one scope, by name."""

    items: list[Variable]
    as_of: int


class ArtifactList(Model):
    """The artifacts of a run."""

    items: list[Artifact]
    as_of: int


class RunAnnotation(Model):
    """A remark that a step of a run made."""

    run_id: str
    job_id: str = Field(examples=["20260131-5f0c2a9b7d31.lint"])
    job: str = Field(description="The job's name.", examples=["lint"])
    attempt: int
    level: Literal["error", "warning", "notice"]
    title: str
    message: str = Field(examples=["unused import"])
    path: str = Field(examples=["src/lid.py"])
    line: int = Field(description="From 1; 0 for none.", examples=[12])
    end_line: int
    column: int
    end_column: int
    step: int = Field(examples=[3])
    step_name: str | None = Field(examples=["Run make lint"])


class AnnotationList(Model):
    """What the steps of a run remarked."""

    items: list[RunAnnotation]
    as_of: int


class Group(Model):
    """Lines of a log that a step put together."""

    step: int = Field(examples=[3])
    step_name: str = Field(examples=["Run make"])
    title: str = Field(examples=["Compile"])
    first_line: int = Field(description="The title's line, counted from 0.", examples=[17])
    last_line: int = Field(description="The last line that belongs to it.", examples=[42])
    lines: int = Field(examples=[26])


class GroupList(Model):
    """The groups of an attempt's log."""

    items: list[Group]
    as_of: int


class PlanProblem(Model):
    """A mistake in a workflow file."""

    path: str
    line: int
    column: int
    message: str


class RunDetail(Run):
    """A run with its jobs, their attempts and steps."""

    problems: list[PlanProblem]
    jobs: list[Job]
    as_of: int


class Page(Model):
    """What every list has."""

    next_cursor: str | None = Field(description="Ask with `cursor=` for the next page.")
    as_of: int = Field(description="Offset of `events` up to which this answer knows.")


class RunPage(Page):
    """A page of runs."""

    items: list[Run]


class TrailEvent(Model):
    """One event of the audit trail; the whole record is in the log at (`cell`, `offset`)."""

    offset: int
    cell: int
    event_id: str
    kind: str = Field(examples=["JobScheduled"])
    occurred_at: int = Field(description=_MS)
    caused_by: str | None = Field(description="The event_id of its cause.")
    delivery_id: str | None
    run_id: str | None
    job_id: str | None
    attempt: int | None
    runner_id: str | None
    boot_id: str | None
    data: dict[str, Any]


class TrailPage(Page):
    """A page of the audit trail."""

    items: list[TrailEvent]


class Accepted(BaseModel):
    """A command's event is in the log."""

    event_id: str
    offset: int


PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "What is wrong with the request, and what to do."},
    "503": {"model": Problem, "description": "The database or ingest does not answer."},
}
