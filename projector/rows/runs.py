"""Repositories, workflows, deliveries and runs: what their events change."""

from __future__ import annotations

import json
from typing import Any

from projector.rows.working import At
from projector.tables import Delivery, Job, Repository, Run, Status, Workflow
from schemas import events as e

# --------------------------------------------------------------------------- repositories


_NEVER_STARTED = ("duplicate_delivery",)


def repository_configured(at: At, event: e.RepositoryConfigured) -> None:
    row = at.find(Repository, event.repository) or Repository(name=event.repository)
    row.provider, row.clone_url = event.provider, event.clone_url
    row.default_branch, row.pools = event.default_branch, list(event.pools)
    row.fork_pull_requests = event.fork_pull_requests
    row.removed, row.configured_at, row.cell = False, event.occurred_at, at.cell
    at.touch(row)


def repository_removed(at: At, event: e.RepositoryRemoved) -> None:
    row = at.find(Repository, event.repository)
    if row is not None:
        row.removed = True
        at.touch(row)


def workflows_indexed(at: At, event: e.WorkflowsIndexed) -> None:
    repository = at.find(Repository, event.repository)
    if repository is not None:
        repository.indexed_sha = event.sha
        at.touch(repository)
    for indexed in event.workflows:
        row = workflow_of(at, event.repository, indexed.path)
        row.name, row.sha, row.ref = indexed.name, event.sha, event.ref
        row.triggers = parsed(indexed.triggers_json)
        row.problems = [problem_of(problem) for problem in indexed.problems]
        row.indexed_at = event.occurred_at
        at.touch(row)


def workflow_of(at: At, repository: str, path: str) -> Workflow:
    path = path[:200]
    return at.find(Workflow, repository, path) or Workflow(repository=repository, path=path)


def parsed(text: str) -> Any:
    """Return what a JSON text says; what is no JSON is kept as the text it is."""
    try:
        text.encode()
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return {"invalid": text[:200].encode(errors="replace").decode()}
    return value


def problem_of(problem: e.PlanProblem) -> dict[str, Any]:
    return {
        "path": problem.path,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
    }


# --------------------------------------------------------------------------- deliveries


def delivery_of(at: At, event: e.Event) -> Delivery | None:
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


def delivery_received(at: At, event: e.DeliveryReceived) -> None:
    row = delivery_of(at, event)
    if row is None or row.received_at is not None:
        return
    row.repository, row.received_at = event.repository, event.occurred_at
    row.source, row.provider, row.event = event.source, event.provider, event.event
    row.action, row.ref, row.sha = event.action, event.ref, event.sha
    row.number, row.fork, row.actor = event.number, event.fork, event.actor
    row.message, row.workflow = event.message, event.workflow


#: How the planner begins its sentence about a pull request that can't be merged.
_CONFLICT = "merge_conflict: "


def delivery_planned(at: At, event: e.DeliveryPlanned) -> None:
    row = delivery_of(at, event)
    if row is None or row.planned_at is not None:
        return
    row.planned_at = event.occurred_at
    # a conflict beside workflows that do run (those for pull_request_target) must be seen, too
    unmerged = [w.reason for w in event.workflows if not w.path and _CONFLICT in w.reason]
    row.status = "failed" if event.error else "planned"
    row.detail = event.error or "; ".join(unmerged)
    row.outcomes = [
        {
            "path": outcome.path,
            "outcome": outcome.outcome,
            "name": outcome.name,
            "reason": outcome.reason,
            "problems": [problem_of(problem) for problem in outcome.problems],
        }
        for outcome in event.workflows
    ]


def delivery_ignored(at: At, event: e.DeliveryIgnored) -> None:
    row = delivery_of(at, event)
    if row is None:
        return
    if event.reason in _NEVER_STARTED:
        # the repeat has the id of the delivery that was acted on, which stays what it is
        row.duplicates += 1
        return
    row.status, row.reason, row.detail = "ignored", event.reason, event.detail


# --------------------------------------------------------------------------- runs


def run_of(at: At, event: e.Event) -> Run:
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


def run_planned(at: At, event: e.RunPlanned) -> None:
    row = run_of(at, event)
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
    note_run_of_delivery(at, event)


def run_rejected(at: At, event: e.RunRejected) -> None:
    if not event.run_id:
        return
    row = run_of(at, event)
    _describe_run(row, event)
    row.run_name = event.workflow_name or event.workflow
    row.status, row.conclusion = Status.COMPLETED, e.Conclusion.FAILURE
    row.reason = event.reason or "user.workflow_invalid"
    row.problems = [problem_of(problem) for problem in event.problems]
    row.finished_at = event.occurred_at
    note_run_of_delivery(at, event)


def _describe_run(row: Run, event: e.RunPlanned | e.RunRejected) -> None:
    row.workflow, row.workflow_name = event.workflow, event.workflow_name
    row.run_number, row.event = event.run_number, event.event
    row.sha, row.ref, row.actor = event.sha, event.ref, event.actor


def note_run_of_delivery(at: At, event: e.RunPlanned | e.RunRejected) -> None:
    delivery = delivery_of(at, event)
    run_id = event.run_id or ""
    if delivery is not None and run_id not in delivery.run_ids:
        delivery.run_ids = [*delivery.run_ids, run_id]
    workflow = workflow_of(at, event.repository, event.workflow)
    workflow.name = workflow.name or event.workflow_name
    if event.run_number >= workflow.latest_run_number:
        workflow.latest_run_id, workflow.latest_run_number = run_id, event.run_number
    at.touch(workflow)


def run_approved(at: At, event: e.RunApproved) -> None:
    row = run_of(at, event)
    row.approval, row.approved_by = "approved", event.actor


def cancel_requested(at: At, event: e.CancelRequested) -> None:
    if not event.run_id:
        return
    row = run_of(at, event)
    if event.job_id is None and row.status != Status.COMPLETED:
        row.cancel_requested_by, row.cancel_requested_at = event.actor, event.occurred_at


def run_finished(at: At, event: e.RunFinished) -> None:
    row = run_of(at, event)
    row.status, row.conclusion, row.reason = Status.COMPLETED, event.conclusion, event.reason
    row.finished_at = event.occurred_at
