"""Events to rows: the pure fold behind every read model.

`needs` says which rows an event looks at, so that a shell can have them at hand; `project`
changes them in a `WorkingSet`. What a report changes is decided by `schemas/lifecycle.py`, as in
the scheduler: one that does not match the live attempt is in the audit trail and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from projector import trail
from projector.tables import (
    ENTITIES,
    Annotation,
    Attempt,
    Delivery,
    Job,
    Key,
    LogSegment,
    Pool,
    Repository,
    Row,
    Run,
    Runner,
    Status,
    Step,
    TrailEntry,
    Workflow,
)
from schemas import events as e
from schemas.lifecycle import Phase, after, token_matches

ID_BYTES_MAX = 1024
_NEVER_STARTED = ("duplicate_delivery",)

RowT = TypeVar("RowT", bound=Row)
Needed = tuple[type[Row], Key]


class UnfoldableError(ValueError):
    """The record decodes but no row can hold it; it is set aside like one that doesn't decode."""


@dataclass(slots=True)
class WorkingSet:
    """The rows that a batch looks at and changes; what is not there yet is None.

    A job that is here has its live attempt here as well: the shell loads and drops both together.
    """

    known: dict[type[Row], dict[Key, Row | None]] = field(
        default_factory=lambda: {table: {} for table in ENTITIES}
    )
    changed: dict[type[Row], dict[Key, Row]] = field(
        default_factory=lambda: {table: {} for table in ENTITIES}
    )
    trail: list[TrailEntry] = field(default_factory=list)
    run_ids: dict[str, None] = field(default_factory=dict)
    archived: list[tuple[str, int]] = field(default_factory=list)

    def missing(self, event: e.Event) -> Iterator[Needed]:
        """Yield what must be looked up before `event` can be projected."""
        for table, key in needs(event):
            if key not in self.known[table]:
                yield table, key

    def start_batch(self) -> None:
        """Forget what changed; keep the rows."""
        for rows in self.changed.values():
            rows.clear()
        self.trail.clear()
        self.run_ids.clear()
        self.archived.clear()

    def size(self) -> int:
        """Return how many rows are at hand."""
        return sum(map(len, self.known.values()))


@dataclass(slots=True)
class _At:
    """A working set at one place of the log."""

    rows: WorkingSet
    cell: int
    offset: int

    def find(self, table: type[RowT], *key: Any) -> RowT | None:
        """Return a row that `needs` named, None when there is none; KeyError if it did not."""
        return self.rows.known[table][key]  # type: ignore[return-value]

    def put(self, row: Row) -> None:
        """Note that a row is new or changed."""
        key = row.identity()
        table = type(row)
        self.rows.known[table][key] = row
        self.rows.changed[table][key] = row

    def touch(self, row: Any) -> None:
        """Note that a row changed, and where."""
        if row.changed_offset != self.offset:
            row.changed_offset = self.offset
            self.put(row)


def needs(event: e.Event) -> Iterator[Needed]:
    """Yield (table, key) of every row that projecting `event` looks at."""
    kind = type(event)
    if kind in _BY_DELIVERY and event.delivery_id is not None:
        yield Delivery, (event.delivery_id,)
    if kind in _BY_RUN and event.run_id is not None:
        yield Run, (event.run_id,)
    if kind in _BY_JOB and event.job_id is not None:
        yield Job, (event.job_id,)
        if event.attempt is not None:
            yield Attempt, (event.job_id, event.attempt)
    if event.runner_id is not None and kind in _BY_RUNNER:
        yield Runner, (event.runner_id,)
    more = _MORE_NEEDS.get(kind)
    if more is not None:
        yield from more(event)


def project(rows: WorkingSet, event: e.Event, cell: int, offset: int) -> None:
    """Change the rows that `event` is about and add it to the trail."""
    at = _At(rows, cell, offset)
    handler = _HANDLERS.get(type(event))
    if handler is not None:
        handler(at, event)
    rows.trail.append(trail.entry(event, cell, offset))


def check(event: e.Event) -> None:
    """Raise UnfoldableError for ids that no index can hold or that are not there."""
    kind = type(event)
    ids = (event.event_id, event.repository, event.run_id, event.delivery_id, event.job_id,
           event.runner_id, event.boot_id, event.caused_by)  # fmt: skip
    together = "%s%s%s%s%s%s%s%s" % ids  # noqa: UP031 - half the time of an f-string here
    if len(together) * 4 > ID_BYTES_MAX or "\0" in together:
        _check_ids(kind.__name__, ids)
    if kind in _OF_A_RUN and not event.run_id:
        raise UnfoldableError(f"{kind.__name__} {event.event_id} has no run_id")
    if kind in _BY_JOB and not event.job_id:
        raise UnfoldableError(f"{kind.__name__} {event.event_id} has no job_id")
    if kind in _BY_ATTEMPT and event.attempt is None:
        raise UnfoldableError(f"{kind.__name__} {event.event_id} has no attempt")


def _check_ids(kind: str, ids: tuple[str | None, ...]) -> None:
    for value in ids:
        if value is None:
            continue
        if len(value.encode()) > ID_BYTES_MAX or "\0" in value:
            raise UnfoldableError(
                f"{kind} has an id of {len(value)} characters ({value[:40]!r}…): "
                f"at most {ID_BYTES_MAX} bytes, and no NUL"
            )


# --------------------------------------------------------------------------- repositories


def _repository_configured(at: _At, event: e.RepositoryConfigured) -> None:
    row = at.find(Repository, event.repository) or Repository(name=event.repository)
    row.provider, row.clone_url = event.provider, event.clone_url
    row.default_branch, row.pools = event.default_branch, list(event.pools)
    row.fork_pull_requests = event.fork_pull_requests
    row.removed, row.configured_at, row.cell = False, event.occurred_at, at.cell
    at.touch(row)


def _repository_removed(at: _At, event: e.RepositoryRemoved) -> None:
    row = at.find(Repository, event.repository)
    if row is not None:
        row.removed = True
        at.touch(row)


def _workflows_indexed(at: _At, event: e.WorkflowsIndexed) -> None:
    repository = at.find(Repository, event.repository)
    if repository is not None:
        repository.indexed_sha = event.sha
        at.touch(repository)
    for indexed in event.workflows:
        row = _workflow(at, event.repository, indexed.path)
        row.name, row.sha, row.ref = indexed.name, event.sha, event.ref
        row.triggers = _parsed(indexed.triggers_json)
        row.problems = [_problem(problem) for problem in indexed.problems]
        row.indexed_at = event.occurred_at
        at.touch(row)


def _workflow(at: _At, repository: str, path: str) -> Workflow:
    path = path[:200]
    return at.find(Workflow, repository, path) or Workflow(repository=repository, path=path)


def _parsed(text: str) -> Any:
    """Return what a JSON text says; what is no JSON is kept as the text it is."""
    try:
        text.encode()
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return {"invalid": text[:200].encode(errors="replace").decode()}
    return value


def _problem(problem: e.PlanProblem) -> dict[str, Any]:
    return {
        "path": problem.path,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
    }


# --------------------------------------------------------------------------- deliveries


def _delivery(at: _At, event: e.Event) -> Delivery | None:
    if event.delivery_id is None:
        return None
    row = at.find(Delivery, event.delivery_id)
    if row is None:
        row = Delivery(
            delivery_id=event.delivery_id,
            repository=event.repository,
            cell=at.cell,
            created_offset=at.offset,
        )
    at.touch(row)
    return row


def _delivery_received(at: _At, event: e.DeliveryReceived) -> None:
    row = _delivery(at, event)
    if row is None or row.received_at is not None:
        return
    row.repository, row.received_at = event.repository, event.occurred_at
    row.source, row.provider, row.event = event.source, event.provider, event.event
    row.action, row.ref, row.sha = event.action, event.ref, event.sha
    row.number, row.fork, row.actor = event.number, event.fork, event.actor
    row.message, row.workflow = event.message, event.workflow


def _delivery_planned(at: _At, event: e.DeliveryPlanned) -> None:
    row = _delivery(at, event)
    if row is None or row.planned_at is not None:
        return
    row.planned_at = event.occurred_at
    row.status, row.detail = ("failed", event.error) if event.error else ("planned", "")
    row.outcomes = [
        {
            "path": outcome.path,
            "outcome": outcome.outcome,
            "name": outcome.name,
            "reason": outcome.reason,
            "problems": [_problem(problem) for problem in outcome.problems],
        }
        for outcome in event.workflows
    ]


def _delivery_ignored(at: _At, event: e.DeliveryIgnored) -> None:
    row = _delivery(at, event)
    if row is None:
        return
    if event.reason in _NEVER_STARTED:
        # the repeat has the id of the delivery that was acted on, which stays what it is
        row.duplicates += 1
        return
    row.status, row.reason, row.detail = "ignored", event.reason, event.detail


# --------------------------------------------------------------------------- runs


def _run(at: _At, event: e.Event) -> Run:
    run_id = event.run_id or ""
    row = at.find(Run, run_id)
    if row is None:
        row = Run(
            run_id=run_id,
            repository=event.repository,
            delivery_id=event.delivery_id,
            created_at=event.occurred_at,
            cell=at.cell,
            created_offset=at.offset,
        )
    at.touch(row)
    at.rows.run_ids[run_id] = None
    return row


def _run_planned(at: _At, event: e.RunPlanned) -> None:
    row = _run(at, event)
    _describe_run(row, event)
    row.run_name, row.head_ref = event.run_name, event.head_ref
    row.number, row.fork, row.message = event.number, event.fork, event.message
    row.run_attempt, row.status, row.conclusion = event.run_attempt, Status.WAITING, None
    row.reason, row.started_at, row.finished_at = "", None, None
    row.cancel_requested_by, row.cancel_requested_at = "", None
    row.approval = "required" if event.approval_required else ""
    for position, planned in enumerate(event.jobs):
        job = at.find(Job, planned.job_id) or Job(job_id=planned.job_id)
        job.run_id, job.repository = row.run_id, row.repository
        job.key, job.name, job.position = planned.key, planned.name, position
        job.needs = list(planned.needs)
        at.touch(job)
    _note_run_of_delivery(at, event)


def _run_rejected(at: _At, event: e.RunRejected) -> None:
    if not event.run_id:
        return
    row = _run(at, event)
    _describe_run(row, event)
    row.run_name = event.workflow_name or event.workflow
    row.status, row.conclusion = Status.COMPLETED, e.Conclusion.FAILURE
    row.reason = event.reason or "user.workflow_invalid"
    row.problems = [_problem(problem) for problem in event.problems]
    row.finished_at = event.occurred_at
    _note_run_of_delivery(at, event)


def _describe_run(row: Run, event: e.RunPlanned | e.RunRejected) -> None:
    row.workflow, row.workflow_name = event.workflow, event.workflow_name
    row.run_number, row.event = event.run_number, event.event
    row.sha, row.ref, row.actor = event.sha, event.ref, event.actor


def _note_run_of_delivery(at: _At, event: e.RunPlanned | e.RunRejected) -> None:
    delivery = _delivery(at, event)
    run_id = event.run_id or ""
    if delivery is not None and run_id not in delivery.run_ids:
        delivery.run_ids = [*delivery.run_ids, run_id]
    workflow = _workflow(at, event.repository, event.workflow)
    workflow.name = workflow.name or event.workflow_name
    if event.run_number >= workflow.latest_run_number:
        workflow.latest_run_id, workflow.latest_run_number = run_id, event.run_number
    at.touch(workflow)


def _run_approved(at: _At, event: e.RunApproved) -> None:
    row = _run(at, event)
    row.approval, row.approved_by = "approved", event.actor


def _cancel_requested(at: _At, event: e.CancelRequested) -> None:
    if not event.run_id:
        return
    row = _run(at, event)
    if event.job_id is None and row.status != Status.COMPLETED:
        row.cancel_requested_by, row.cancel_requested_at = event.actor, event.occurred_at


def _run_finished(at: _At, event: e.RunFinished) -> None:
    row = _run(at, event)
    row.status, row.conclusion, row.reason = Status.COMPLETED, event.conclusion, event.reason
    row.finished_at = event.occurred_at


# --------------------------------------------------------------------------- jobs: decisions


def _job(at: _At, event: e.Event, job_id: str | None = None) -> Job:
    job_id = job_id or event.job_id or ""
    row = at.find(Job, job_id)
    if row is None:
        key = job_id.removeprefix(f"{event.run_id}.")
        row = Job(job_id=job_id, run_id=event.run_id or "", key=key, name=key)
        row.repository = event.repository
    at.touch(row)
    _run(at, event)
    return row


def _live_attempt(at: _At, job: Job) -> Attempt | None:
    return at.find(Attempt, job.job_id, job.live_attempt) if job.live_attempt else None


def _matrix_expanded(at: _At, event: e.MatrixExpanded) -> None:
    node = _job(at, event)
    node.expanded = True
    for leg in event.legs:
        job = _job(at, event, leg.job_id)
        job.key, job.name, job.position = node.key, leg.name, node.position
        job.needs, job.matrix_of, job.leg = node.needs, node.job_id, leg.index
        job.matrix = _parsed(leg.matrix_json)


def _job_scheduled(at: _At, event: e.JobScheduled) -> None:
    job = _job(at, event)
    number = event.attempt or 0
    if number <= job.live_attempt:
        return
    before = _live_attempt(at, job)
    if before is not None:
        _end_by_decision(at, before, event, e.Conclusion.FAILURE, before.reason)
    at.touch(
        Attempt(
            job_id=job.job_id,
            attempt=number,
            run_id=job.run_id,
            repository=job.repository,
            pool=event.pool,
            scheduled_because=event.reason,
            queued_at=event.occurred_at,
        )
    )
    job.live_attempt, job.pool, job.labels = number, event.pool, list(event.labels)
    job.name = event.name or job.name
    job.status, job.conclusion, job.reason, job.message = Status.QUEUED, None, "", ""
    job.queued_at, job.started_at, job.finished_at = event.occurred_at, None, None
    _unblock(job)
    run = _run(at, event)
    if run.status == Status.WAITING:
        run.status = Status.QUEUED


def _job_blocked(at: _At, event: e.JobBlocked) -> None:
    job = _job(at, event)
    if job.status in (Status.WAITING, Status.QUEUED):
        job.blocked_reason, job.blocked_detail = event.reason, event.detail
        job.blockers = list(event.blockers)


def _unblock(job: Job) -> None:
    job.blocked_reason, job.blocked_detail, job.blockers = None, "", []


def _job_assigned(at: _At, event: e.JobAssigned) -> None:
    job = _job(at, event)
    attempt = _live_attempt(at, job)
    if attempt is None or event.attempt != job.live_attempt or not _moves(attempt, event):
        return
    attempt.runner_id, attempt.boot_id = event.runner_id, event.boot_id
    attempt.assigned_at = event.occurred_at
    at.touch(attempt)
    job.status = Status.ASSIGNED
    _unblock(job)


def _attempt_lost(at: _At, event: e.AttemptLost) -> None:
    job = _job(at, event)
    attempt = _live_attempt(at, job)
    if attempt is None or event.attempt != job.live_attempt or not _moves(attempt, event):
        return
    attempt.reason, attempt.lost_at = event.reason, event.occurred_at
    at.touch(attempt)


def _job_skipped(at: _At, event: e.JobSkipped) -> None:
    _conclude(at, event, e.Conclusion.SKIPPED, event.reason)


def _job_cancelled(at: _At, event: e.JobCancelled) -> None:
    _conclude(at, event, e.Conclusion.CANCELLED, event.reason)


def _job_failed(at: _At, event: e.JobFailed) -> None:
    job = _conclude(at, event, e.Conclusion.FAILURE, event.reason)
    job.message = event.message


def _conclude(at: _At, event: e.Event, conclusion: str, reason: str) -> Job:
    """End a job by the scheduler's word, which outranks what its attempt said."""
    job = _job(at, event)
    attempt = _live_attempt(at, job)
    if attempt is not None:
        _end_by_decision(at, attempt, event, conclusion, reason)
    job.status, job.conclusion, job.reason = Status.COMPLETED, conclusion, reason
    job.finished_at = job.finished_at or event.occurred_at
    _unblock(job)
    return job


def _end_by_decision(
    at: _At, attempt: Attempt, event: e.Event, conclusion: str, reason: str
) -> None:
    if not _moves(attempt, event):
        return
    attempt.conclusion, attempt.reason = conclusion, reason
    attempt.finished_at = attempt.lost_at or event.occurred_at
    at.touch(attempt)


def _moves(attempt: Attempt, event: e.Event) -> bool:
    """Move the attempt to its next phase; False when the event is refused there."""
    phase = after(Phase(attempt.phase), type(event).__name__)
    if phase is None:
        return False
    attempt.phase = phase
    return True


# --------------------------------------------------------------------------- jobs: reports


def _reported(at: _At, event: e.Event) -> tuple[Job, Attempt] | None:
    """Return the live job and attempt of a report, None when it is refused."""
    job = at.find(Job, event.job_id)
    if job is None or not job.live_attempt or event.attempt != job.live_attempt:
        return None
    attempt = at.find(Attempt, job.job_id, job.live_attempt)
    if attempt is None or not token_matches(
        (attempt.attempt, attempt.runner_id, attempt.boot_id),
        (event.attempt, event.runner_id, event.boot_id),
    ):
        return None
    if not _moves(attempt, event):
        return None
    at.touch(job)
    at.touch(attempt)
    _run(at, event)
    return job, attempt


def _job_started(at: _At, event: e.JobStarted) -> None:
    found = _reported(at, event)
    if found is None:
        return
    job, attempt = found
    attempt.started_at, attempt.isolation = event.occurred_at, event.isolation
    attempt.runner_name = event.runner_name
    job.status, job.started_at = Status.RUNNING, event.occurred_at
    _run_is_running(at, event, event.occurred_at)


def _run_is_running(at: _At, event: e.Event, since: int) -> None:
    run = _run(at, event)
    if run.status != Status.COMPLETED:
        run.status = Status.RUNNING
    if run.started_at is None:
        run.started_at = since


def _step_started(at: _At, event: e.StepStarted) -> None:
    found = _reported(at, event)
    if found is None:
        return
    row = _step(at, found[1], event)
    row.started_at = event.started_at or event.occurred_at
    at.put(row)


def _step_finished(at: _At, event: e.StepFinished) -> None:
    found = _reported(at, event)
    if found is None:
        return
    row = _step(at, found[1], event)
    row.status, row.conclusion, row.outcome = Status.COMPLETED, event.conclusion, event.outcome
    row.exit_code, row.reason = event.exit_code, event.reason
    row.started_at = event.started_at or row.started_at
    row.finished_at = event.finished_at or event.occurred_at
    row.first_line, row.lines = event.first_line, event.lines
    at.put(row)


def _step(at: _At, attempt: Attempt, event: e.StepStarted | e.StepFinished) -> Step:
    row = at.find(Step, attempt.job_id, attempt.attempt, event.number)
    if row is None:
        row = Step(job_id=attempt.job_id, attempt=attempt.attempt, number=event.number)
        row.run_id = attempt.run_id
    row.name = event.name
    return row


def _job_finished(at: _At, event: e.JobFinished) -> None:
    found = _reported(at, event)
    if found is None:
        return
    job, attempt = found
    finished_at = event.finished_at or event.occurred_at
    attempt.started_at = attempt.started_at or event.started_at or None
    attempt.finished_at, attempt.conclusion = finished_at, event.conclusion
    attempt.reason, attempt.message = event.reason, event.message
    attempt.log_lines, attempt.log_sha256 = event.log_lines, event.log_sha256
    job.status, job.conclusion, job.reason = Status.COMPLETED, event.conclusion, event.reason
    job.message, job.outputs, job.summary = event.message, dict(event.outputs), event.summary
    job.started_at, job.finished_at = attempt.started_at, finished_at
    for ordinal, remark in enumerate(event.annotations):
        at.put(_annotation(attempt, ordinal, remark))
    if attempt.started_at is not None:
        _run_is_running(at, event, attempt.started_at)


def _annotation(attempt: Attempt, ordinal: int, remark: e.Annotation) -> Annotation:
    return Annotation(
        job_id=attempt.job_id,
        attempt=attempt.attempt,
        ordinal=ordinal,
        run_id=attempt.run_id,
        level=remark.level,
        title=remark.title,
        message=remark.message,
        path=remark.path,
        line=remark.line,
        end_line=remark.end_line,
        col=remark.column,
        end_col=remark.end_column,
        step=remark.step,
    )


def _assignment_declined(at: _At, event: e.AssignmentDeclined) -> None:
    found = _reported(at, event)
    if found is None:
        return
    job, attempt = found
    attempt.runner_id = attempt.boot_id = attempt.assigned_at = None
    job.status = Status.QUEUED


def _log_archived(at: _At, event: e.LogArchived) -> None:
    attempt = at.find(Attempt, event.job_id, event.attempt)
    if attempt is None or attempt.log_archived_offset is not None:
        return
    attempt.log_archived_offset = at.offset
    attempt.log_lines, attempt.log_sha256 = event.lines, event.sha256
    attempt.log_bytes, attempt.log_complete = event.size_bytes, event.complete
    attempt.log_detail = event.detail
    at.touch(attempt)
    for segment in event.segments:
        at.put(
            LogSegment(
                job_id=attempt.job_id,
                attempt=attempt.attempt,
                first_line=segment.first_line,
                lines=segment.lines,
                uri=segment.uri,
                sha256=segment.sha256,
                size_bytes=segment.size_bytes,
            )
        )
    at.rows.archived.append((attempt.job_id, attempt.attempt))
    _run(at, event)


# --------------------------------------------------------------------------- runners and pools


def _runner_joined(at: _At, event: e.RunnerJoined) -> None:
    row = at.find(Runner, event.runner_id) or Runner(runner_id=event.runner_id or "")
    boot_id = event.boot_id or ""
    if boot_id < row.boot_id or (boot_id == row.boot_id and row.status != "online"):
        return  # a lower, lost or dismissed boot is ignored for ever
    if boot_id != row.boot_id:
        row.joined_at = event.occurred_at
    row.boot_id, row.pool, row.labels = boot_id, event.pool, list(event.labels)
    row.slots, row.lane, row.name = event.slots, event.lane, event.name
    row.isolation, row.version, row.hostname = event.isolation, event.version, event.hostname
    row.status, row.reason, row.gone_at = "online", "", None
    at.touch(row)


def _runner_gone(at: _At, event: e.RunnerLost | e.RunnerDismissed) -> None:
    row = at.find(Runner, event.runner_id)
    if row is None or row.boot_id != event.boot_id:
        return
    row.status = "lost" if isinstance(event, e.RunnerLost) else "dismissed"
    row.reason, row.gone_at = event.reason, event.occurred_at
    at.touch(row)


def _pool_configured(at: _At, event: e.PoolConfigured) -> None:
    row = at.find(Pool, event.pool) or Pool(name=event.pool)
    row.labels, row.actor = list(event.labels), event.actor
    row.configured_at = event.occurred_at
    at.touch(row)


# --------------------------------------------------------------------------- who handles what


def _needs_of_run_planned(event: e.RunPlanned) -> Iterator[Needed]:
    yield Workflow, (event.repository, event.workflow[:200])
    for planned in event.jobs:
        yield Job, (planned.job_id,)


def _needs_of_matrix(event: e.MatrixExpanded) -> Iterator[Needed]:
    for leg in event.legs:
        yield Job, (leg.job_id,)


def _needs_of_step(event: e.StepStarted | e.StepFinished) -> Iterator[Needed]:
    yield Step, (event.job_id, event.attempt, event.number)


def _needs_of_repository(event: e.Event) -> Iterator[Needed]:
    yield Repository, (event.repository,)


def _needs_of_index(event: e.WorkflowsIndexed) -> Iterator[Needed]:
    yield Repository, (event.repository,)
    for workflow in event.workflows:
        yield Workflow, (event.repository, workflow.path[:200])


_MORE_NEEDS: dict[type[e.Event], Callable[[Any], Iterator[Needed]]] = {
    e.RunPlanned: _needs_of_run_planned,
    e.RunRejected: lambda event: iter([(Workflow, (event.repository, event.workflow[:200]))]),
    e.MatrixExpanded: _needs_of_matrix,
    e.StepStarted: _needs_of_step,
    e.StepFinished: _needs_of_step,
    e.RepositoryConfigured: _needs_of_repository,
    e.RepositoryRemoved: _needs_of_repository,
    e.WorkflowsIndexed: _needs_of_index,
    e.PoolConfigured: lambda event: iter([(Pool, (event.pool,))]),
}

_HANDLERS: dict[type[e.Event], Callable[[_At, Any], None]] = {
    e.RepositoryConfigured: _repository_configured,
    e.RepositoryRemoved: _repository_removed,
    e.WorkflowsIndexed: _workflows_indexed,
    e.DeliveryReceived: _delivery_received,
    e.DeliveryPlanned: _delivery_planned,
    e.DeliveryIgnored: _delivery_ignored,
    e.RunPlanned: _run_planned,
    e.RunRejected: _run_rejected,
    e.RunApproved: _run_approved,
    e.RunFinished: _run_finished,
    e.CancelRequested: _cancel_requested,
    e.MatrixExpanded: _matrix_expanded,
    e.JobScheduled: _job_scheduled,
    e.JobBlocked: _job_blocked,
    e.JobAssigned: _job_assigned,
    e.JobStarted: _job_started,
    e.StepStarted: _step_started,
    e.StepFinished: _step_finished,
    e.JobFinished: _job_finished,
    e.JobSkipped: _job_skipped,
    e.JobCancelled: _job_cancelled,
    e.JobFailed: _job_failed,
    e.AssignmentDeclined: _assignment_declined,
    e.AttemptLost: _attempt_lost,
    e.LogArchived: _log_archived,
    e.RunnerJoined: _runner_joined,
    e.RunnerLost: _runner_gone,
    e.RunnerDismissed: _runner_gone,
    e.PoolConfigured: _pool_configured,
}

#: Kinds that are in the audit trail only.
TRAIL_ONLY: frozenset[type[e.Event]] = frozenset(
    {e.StaleReport, e.SecretsReleased, e.SchedulerStarted, e.DeadlinePassed}
)
_BY_DELIVERY = frozenset(
    {e.DeliveryReceived, e.DeliveryPlanned, e.DeliveryIgnored, e.RunPlanned, e.RunRejected}
)
_BY_ATTEMPT = frozenset(
    {e.JobScheduled, e.JobAssigned, e.JobStarted, e.StepStarted, e.StepFinished, e.JobFinished,
     e.AssignmentDeclined, e.AttemptLost, e.LogArchived}
)  # fmt: skip
_BY_JOB = _BY_ATTEMPT | {
    e.MatrixExpanded, e.JobBlocked, e.JobSkipped, e.JobCancelled, e.JobFailed
}  # fmt: skip
_BY_RUN = _BY_JOB | {
    e.RunPlanned, e.RunRejected, e.RunApproved, e.RunFinished, e.CancelRequested
}  # fmt: skip
_OF_A_RUN = _BY_RUN - {e.RunRejected, e.CancelRequested}
_BY_RUNNER = frozenset({e.RunnerJoined, e.RunnerLost, e.RunnerDismissed})
