"""Events to rows: the pure fold behind every read model.

`needs` says which rows an event looks at, so that a shell can have them at hand; `project`
changes them in a `WorkingSet`. What a report changes is decided by `schemas/lifecycle.py`, as in
the scheduler: one that does not match the live attempt is in the audit trail and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from projector import trail
from projector.rows import fleet, jobs, reports, runs, variables
from projector.rows.working import At, Needed, UnfoldableError, WorkingSet
from projector.tables import (
    Artifact,
    Attempt,
    Delivery,
    Job,
    Pool,
    Repository,
    Run,
    Runner,
    Step,
    Variable,
    Workflow,
)
from schemas import events as e

__all__ = ["Needed", "UnfoldableError", "WorkingSet", "check", "missing", "needs", "project"]

ID_BYTES_MAX = 1024


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


def missing(rows: WorkingSet, event: e.Event) -> Iterator[Needed]:
    """Yield what must be looked up before `event` can be projected."""
    known = rows.known
    for table, key in needs(event):
        if key not in known[table]:
            yield table, key


def project(rows: WorkingSet, event: e.Event, cell: int, offset: int) -> None:
    """Change the rows that `event` is about and add it to the trail."""
    at = At(rows, cell, offset)
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
    if isinstance(event, e.ArtifactUploaded):
        _check_ids(kind.__name__, (event.uri, event.artifact_id))


def _check_ids(kind: str, ids: tuple[str | None, ...]) -> None:
    for value in ids:
        if value is None:
            continue
        if len(value.encode()) > ID_BYTES_MAX or "\0" in value:
            raise UnfoldableError(
                f"{kind} has an id of {len(value)} characters ({value[:40]!r}…): "
                f"at most {ID_BYTES_MAX} bytes, and no NUL"
            )


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


def _needs_of_configuration(event: e.RepositoryConfigured) -> Iterator[Needed]:
    yield Repository, (event.repository,)
    for name in event.variables:
        yield Variable, (event.repository, "", name.upper())


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
    e.ArtifactUploaded: lambda event: iter([(Artifact, reports.slot_of(event))]),
    e.RepositoryConfigured: _needs_of_configuration,
    e.VariableSet: lambda event: iter([(Variable, variables.key_of(event))]),
    e.VariableRemoved: lambda event: iter([(Variable, variables.key_of(event))]),
    e.RepositoryRemoved: _needs_of_repository,
    e.WorkflowsIndexed: _needs_of_index,
    e.PoolConfigured: lambda event: iter([(Pool, (event.pool,))]),
}


def _repository_configured(at: At, event: e.RepositoryConfigured) -> None:
    runs.repository_configured(at, event)
    variables.configured(at, event)


_HANDLERS: dict[type[e.Event], Callable[[At, Any], None]] = {
    e.RepositoryConfigured: _repository_configured,
    e.RepositoryRemoved: runs.repository_removed,
    e.WorkflowsIndexed: runs.workflows_indexed,
    e.DeliveryReceived: runs.delivery_received,
    e.DeliveryPlanned: runs.delivery_planned,
    e.DeliveryIgnored: runs.delivery_ignored,
    e.RunPlanned: runs.run_planned,
    e.RunRejected: runs.run_rejected,
    e.RunApproved: runs.run_approved,
    e.RunFinished: runs.run_finished,
    e.CancelRequested: runs.cancel_requested,
    e.MatrixExpanded: jobs.matrix_expanded,
    e.JobScheduled: jobs.job_scheduled,
    e.JobBlocked: jobs.job_blocked,
    e.JobAssigned: jobs.job_assigned,
    e.JobStarted: reports.job_started,
    e.StepStarted: reports.step_started,
    e.StepFinished: reports.step_finished,
    e.JobFinished: reports.job_finished,
    e.ArtifactUploaded: reports.artifact_uploaded,
    e.JobSkipped: jobs.job_skipped,
    e.JobCancelled: jobs.job_cancelled,
    e.JobFailed: jobs.job_failed,
    e.AssignmentDeclined: reports.assignment_declined,
    e.AttemptLost: jobs.attempt_lost,
    e.LogArchived: reports.log_archived,
    e.RunnerJoined: fleet.runner_joined,
    e.RunnerLost: fleet.runner_gone,
    e.RunnerDismissed: fleet.runner_gone,
    e.PoolConfigured: fleet.pool_configured,
    e.VariableSet: variables.variable_set,
    e.VariableRemoved: variables.variable_removed,
}

#: Kinds that are in the audit trail only.
TRAIL_ONLY: frozenset[type[e.Event]] = frozenset(
    {
        e.WorkflowCalled,
        e.StaleReport,
        e.SecretsReleased,
        e.SchedulerStarted,
        e.DeadlinePassed,
    }
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
    e.RunPlanned, e.RunRejected, e.RunApproved, e.RunFinished, e.CancelRequested,
    e.ArtifactUploaded,
}  # fmt: skip
_OF_A_RUN = _BY_RUN - {e.RunRejected, e.CancelRequested}
_BY_RUNNER = frozenset({e.RunnerJoined, e.RunnerLost, e.RunnerDismissed})
