"""The only place that changes a cell's rows: one function per kind, for inputs and decisions alike.

Nothing is decided here and nothing is refused: `admission.refusal` was asked before. Evolving a
recorded history gives the state in which it was made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scheduler.core.evolve import jobs, places, runs
from scheduler.core.index import Index
from scheduler.core.state import State
from schemas import events as e


def evolve(state: State, index: Index, event: e.Event) -> None:
    """Change the rows by one event."""
    EVOLVERS[type(event)](state, index, event)


def _nothing(state: State, index: Index, event: e.Event) -> None:
    """The kind says something to readers and changes nothing here."""


Evolver = Callable[[State, Index, Any], None]

EVOLVERS: dict[type[e.Event], Evolver] = {
    e.DeliveryReceived: runs.delivery_received,
    e.DeliveryPlanned: runs.delivery_planned,
    e.DeliveryIgnored: runs.delivery_ignored,
    e.WorkflowsIndexed: places.workflows_indexed,
    e.RunPlanned: runs.run_planned,
    e.RunRejected: runs.run_rejected,
    e.RunApproved: runs.run_approved,
    e.RunFinished: runs.run_finished,
    e.MatrixExpanded: jobs.matrix_expanded,
    e.WorkflowCalled: jobs.workflow_called,
    e.JobScheduled: jobs.job_scheduled,
    e.JobBlocked: jobs.job_blocked,
    e.JobAssigned: jobs.job_assigned,
    e.JobStarted: jobs.job_started,
    e.StepStarted: _nothing,
    e.StepFinished: _nothing,
    e.JobFinished: jobs.job_finished,
    e.JobSkipped: jobs.job_skipped,
    e.JobCancelled: jobs.job_cancelled,
    e.JobFailed: jobs.job_failed,
    e.CancelRequested: runs.cancel_requested,
    e.AssignmentDeclined: jobs.assignment_declined,
    e.AttemptLost: jobs.attempt_lost,
    e.StaleReport: _nothing,
    e.SecretsReleased: _nothing,
    e.ArtifactUploaded: _nothing,
    e.LogArchived: _nothing,
    e.RunnerJoined: places.runner_joined,
    e.RunnerLost: places.runner_gone,
    e.RunnerDismissed: places.runner_gone,
    e.RepositoryConfigured: places.repository_configured,
    e.RepositoryRemoved: places.repository_removed,
    e.PoolConfigured: places.pool_configured,
    e.VariableSet: places.variable_set,
    e.VariableRemoved: places.variable_removed,
    e.SchedulerStarted: _nothing,
    e.DeadlinePassed: places.deadline_passed,
}
