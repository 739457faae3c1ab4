"""Deliveries that the scheduler makes itself: ticks of cron entries, and what runs tell workflows.

Decisions like any other: they are evolved when they are made, the shell skips them when they come
back, and the planner answers them as it answers a webhook.
"""

from __future__ import annotations

import json
from typing import Any

from scheduler.core import known
from scheduler.core.index import Index
from scheduler.core.outputs import Cause
from scheduler.core.state import Armed, Known, Plan, Repository, Run, State
from schemas import events as e
from schemas.codec import event_id
from schemas.workflow.contexts import ref_name

#: A tick that is read later than this was missed: its time is over, and the next one is armed.
MISSED_AFTER_MS = 60_000
SCHEDULE = "schedule"
ACTOR = "tailrace"


def tick(
    state: State, index: Index, event: e.DeadlinePassed, armed: Armed, cause: Cause
) -> e.DeliveryReceived | None:
    """Return the delivery of a cron tick; None for one that was missed or already made."""
    found = known.entry_of(state, armed)
    repository = state.repositories.get(armed.subject)
    late = event.occurred_at - armed.at_ms > MISSED_AFTER_MS
    # an index that was read again may have armed a tick that was made before
    repeated = armed.deadline_id in index.seen[armed.subject]
    if found is None or repository is None or late or repeated:
        return None
    index_row, entry = found
    payload = {
        "schedule": entry.cron,
        "workflow": entry.workflow,
        "repository": _repository(repository),
        "sender": {"login": ACTOR},
    }
    return _delivery(
        armed.deadline_id,
        index_row,
        repository,
        cause,
        source=e.Source.CRON,
        event=SCHEDULE,
        occurred_at=event.occurred_at or armed.at_ms,
        actor=ACTOR,
        workflow=entry.workflow,
        schedule=entry.cron,
        payload_json=_dumped(payload),
    )


def told(
    state: State, run_id: str | None, action: str, cause: Cause, conclusion: str | None = None
) -> e.DeliveryReceived | None:
    """Return the workflow_run delivery about a run, if a workflow of the repository wants it."""
    run = state.runs.get(run_id)
    if run is None:
        return None
    index_row = known.wanted(state, run, action)
    repository = state.repositories.get(run.repository)
    if index_row is None or repository is None:
        return None
    plan = state.plans[run.run_id]
    payload = {
        "action": action,
        "workflow_run": _workflow_run(run, plan, repository, action, conclusion),
        "workflow": {"id": run.workflow, "name": plan.workflow_name, "path": run.workflow},
        "repository": _repository(repository),
        "sender": {"login": plan.actor},
    }
    return _delivery(
        f"{known.WORKFLOW_RUN}:{run.run_id}@{run.run_attempt}:{action}",
        index_row,
        repository,
        cause,
        source=e.Source.RUN,
        event=known.WORKFLOW_RUN,
        # never 0: the shell would put its own time in, and a replay give the run another id
        occurred_at=cause.occurred_at or 1,
        action=action,
        actor=plan.actor,
        workflow=plan.workflow_name,
        head_ref=_branch(plan),
        # what a fork began stays a fork's, however many runs lie between
        fork=plan.from_fork,
        chain=plan.chain + 1,
        payload_json=_dumped(payload),
    )


def _delivery(
    delivery_id: str, index_row: Known, repository: Repository, cause: Cause, **facts: Any
) -> e.DeliveryReceived:
    return e.DeliveryReceived(
        event_id=event_id("DeliveryReceived", repository.name, delivery_id),
        repository=repository.name,
        caused_by=cause.event_id,
        delivery_id=delivery_id,
        provider=repository.provider,
        ref=index_row.ref,
        sha=index_row.sha,
        default_branch=ref_name(index_row.ref),
        **facts,
    )


_STATUS = {known.REQUESTED: "queued", known.IN_PROGRESS: "in_progress",
           known.COMPLETED: "completed"}  # fmt: skip


def _workflow_run(
    run: Run, plan: Plan, repository: Repository, action: str, conclusion: str | None
) -> dict[str, Any]:
    # of a fork's run the name is not known here; it must not look like the repository's own
    head = {"full_name": "", "fork": True} if plan.from_fork else _repository(repository)
    return {
        "id": run.run_id,
        "name": plan.workflow_name,
        "display_title": plan.run_name,
        "path": run.workflow,
        "workflow_id": run.workflow,
        "run_number": run.run_number,
        "run_attempt": run.run_attempt,
        "event": plan.event,
        "status": _STATUS[action],
        "conclusion": conclusion,
        "head_branch": _branch(plan),
        "head_sha": plan.head_sha,
        "head_repository": head,
        "repository": _repository(repository),
        "pull_requests": [{"number": plan.number}] if plan.number else [],
        "actor": {"login": plan.actor},
        "triggering_actor": {"login": plan.actor},
    }


def _branch(plan: Plan) -> str:
    return ref_name(plan.head_ref or plan.ref)


def _repository(row: Repository) -> dict[str, Any]:
    owner, _, name = row.name.rpartition("/")
    return {
        "full_name": row.name,
        "name": name,
        "owner": {"login": owner.partition("/")[0]},
        "default_branch": row.default_branch,
        "fork": False,
    }


def _dumped(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
