"""From deliveries to runs, in the order in which a repository's deliveries came in."""

from __future__ import annotations

import json
from collections.abc import Iterator

from scheduler.core import orchestration, variables
from scheduler.core.evolve.runs import is_untrusted, number_name, secrets_withheld
from scheduler.core.index import Index
from scheduler.core.outputs import Cause, Output
from scheduler.core.state import Delivery, Outcome, Repository, Run, State
from scheduler.core.view import (
    event_json,
    outcome_context,
    plan_view,
    planned_jobs,
    run_context,
)
from schemas import events as e
from schemas.codec import event_id, run_planned_id
from schemas.ids import run_id
from schemas.workflow.errors import LanguageError
from schemas.workflow.expressions import Value, evaluate_template
from schemas.workflow.plan import WorkflowPlan

GIT_UNREACHABLE = "infra.git_unreachable"
#: The planner's codes that somebody has to act on; all others are `no_workflow`.
_OWN_CODES = ("merge_conflict", "unreadable")


def duplicate(event: e.DeliveryReceived, reason: str, cause: Cause) -> e.DeliveryIgnored:
    """Return the decision about a delivery that says what another one said."""
    detail = {
        "duplicate_delivery": "a delivery with this id was received before",
        "duplicate_head": f"pull request {event.number} was already seen at {event.sha[:12]}",
    }[reason]
    return e.DeliveryIgnored(
        event_id=event_id("DeliveryIgnored", event.delivery_id, cause.offset),
        repository=event.repository,
        caused_by=cause.event_id,
        delivery_id=event.delivery_id,
        reason=reason,
        detail=detail,
    )


def release(state: State, index: Index, repository: str, cause: Cause) -> Iterator[Output]:
    """Act on every answered delivery that no unanswered one is ahead of."""
    pending = index.pending[repository]
    while pending:
        delivery = state.deliveries[pending[0]]
        if not delivery.answered:
            return
        yield from _act(state, index, delivery, cause)


def unanswered(state: State, index: Index, delivery_id: str, cause: Cause) -> Iterator[Output]:
    """The planner's deadline passed: reject the delivery and let the next ones go."""
    delivery = state.deliveries[delivery_id]
    yield _rejected_whole(delivery, cause, "no answer from the planner within 60 s")
    yield _ignored(delivery, cause, GIT_UNREACHABLE, "no answer from the planner within 60 s")
    yield from release(state, index, delivery.repository, cause)


def _act(state: State, index: Index, delivery: Delivery, cause: Cause) -> Iterator[Output]:
    if delivery.error:
        yield _rejected_whole(delivery, cause, delivery.error)
        yield _ignored(delivery, cause, GIT_UNREACHABLE, delivery.error)
        return
    outcomes = [outcome for outcome in delivery.outcomes if not outcome.withheld]
    if not outcomes:
        yield _ignored(delivery, cause, _why(delivery), "; ".join(delivery.ignored))
        return
    repository = state.repositories.get(delivery.repository) or Repository(name=delivery.repository)
    for outcome in outcomes:
        if outcome.outcome == e.Outcome.REJECTED:
            yield _rejected(state, delivery, outcome, outcome.problems, cause)
            continue
        try:
            plan = plan_view(outcome.plan_json or "").plan
        except LanguageError as error:
            problems = ((outcome.path, 1, 1, str(error)),)
            yield _rejected(state, delivery, outcome, problems, cause)
            continue
        planned = _planned(state, repository, delivery, outcome, plan, cause)
        yield planned
        yield from orchestration.begin(state, index, planned.run_id or "", cause)


def _why(delivery: Delivery) -> str:
    """Return the code of a delivery that starts nothing."""
    if delivery.outcomes:
        return "fork"  # and each of them is withheld
    codes = {text.partition(": ")[0] for text in delivery.ignored}
    return next((code for code in _OWN_CODES if code in codes), "no_workflow")


def _run_id(delivery: Delivery, outcome: Outcome) -> str:
    """Return the id of an outcome's run.

    A pull request may start a workflow twice: for itself and, beside it, as pull_request_target.
    """
    beside = outcome.event not in ("", delivery.event)
    name = f"{outcome.path}#{outcome.event}" if beside else outcome.path
    return run_id(delivery.occurred_at, delivery.delivery_id, name)


def _run_name(
    state: State, plan: WorkflowPlan, delivery: Delivery, outcome: Outcome, run: Run
) -> str:
    """Return `run-name` evaluated; without one the commit's first line, as on GitHub."""
    if plan.run_name is None:
        return delivery.message.split("\n", 1)[0] or plan.name
    event, sha = outcome.event or delivery.event, outcome.sha or delivery.sha
    ref = outcome.ref or delivery.ref
    payload = event_json(delivery.payload_json, event, outcome.path, outcome.inputs_json)
    github: dict[str, Value] = {
        **json.loads(delivery.github_json),
        **outcome_context(event, sha, ref),
        **run_context(run, outcome.name or plan.name, sha, ref),
        "event": json.loads(payload) if payload else {},
    }
    inputs: Value = json.loads(outcome.inputs_json or "{}")
    contexts: dict[str, Value] = {
        "github": github,
        "inputs": inputs,
        "vars": {**variables.of_job(state, delivery.repository)},
    }
    try:
        return evaluate_template(plan.run_name, contexts) or plan.name
    except LanguageError:
        return plan.run_name


def _ignored(delivery: Delivery, cause: Cause, reason: str, detail: str) -> e.DeliveryIgnored:
    return e.DeliveryIgnored(
        event_id=event_id("DeliveryIgnored", delivery.delivery_id),
        repository=delivery.repository,
        caused_by=_cause_of(delivery, cause),
        delivery_id=delivery.delivery_id,
        reason=reason,
        detail=detail or "no workflow file is triggered by this event",
    )


def _cause_of(delivery: Delivery, cause: Cause) -> str:
    return cause.event_id if cause.delivery_id == delivery.delivery_id else delivery.event_id


def _rejected_whole(delivery: Delivery, cause: Cause, message: str) -> e.RunRejected:
    """Return a rejected run that stands for the whole delivery: no file could be read."""
    return e.RunRejected(
        event_id=event_id("RunRejected", delivery.delivery_id, ""),
        repository=delivery.repository,
        run_id=run_id(delivery.occurred_at, delivery.delivery_id, ""),
        caused_by=_cause_of(delivery, cause),
        delivery_id=delivery.delivery_id,
        workflow="",
        reason=GIT_UNREACHABLE,
        event=delivery.event,
        sha=delivery.sha,
        ref=delivery.ref,
        actor=delivery.actor,
        problems=(e.PlanProblem(path="", line=0, column=0, message=message),),
    )


def _rejected(
    state: State,
    delivery: Delivery,
    outcome: Outcome,
    problems: tuple[tuple[str, int, int, str], ...],
    cause: Cause,
) -> e.RunRejected:
    return e.RunRejected(
        event_id=event_id("RunRejected", _run_id(delivery, outcome)),
        repository=delivery.repository,
        run_id=_run_id(delivery, outcome),
        caused_by=_cause_of(delivery, cause),
        delivery_id=delivery.delivery_id,
        workflow=outcome.path,
        workflow_name=outcome.name or outcome.path,
        run_number=state.next_number(number_name(delivery.repository, outcome.path)),
        reason="user.invalid_workflow",
        event=outcome.event or delivery.event,
        sha=outcome.sha or delivery.sha,
        ref=outcome.ref or delivery.ref,
        actor=delivery.actor,
        problems=tuple(
            e.PlanProblem(path=path, line=line, column=column, message=message)
            for path, line, column, message in problems
        ),
    )


def _planned(
    state: State,
    repository: Repository,
    delivery: Delivery,
    outcome: Outcome,
    plan: WorkflowPlan,
    cause: Cause,
) -> e.RunPlanned:
    run = _run_id(delivery, outcome)
    number = state.next_number(number_name(delivery.repository, outcome.path))
    untrusted = is_untrusted(delivery, outcome.event)
    row = Run(
        run_id=run,
        repository=delivery.repository,
        delivery_id=delivery.delivery_id,
        workflow=outcome.path,
        run_number=number,
        planned_id=run_planned_id(run),
    )
    return e.RunPlanned(
        event_id=run_planned_id(run),
        repository=delivery.repository,
        run_id=run,
        caused_by=_cause_of(delivery, cause),
        delivery_id=delivery.delivery_id,
        workflow=outcome.path,
        workflow_name=outcome.name or plan.name,
        run_name=_run_name(state, plan, delivery, outcome, row),
        run_number=number,
        event=outcome.event or delivery.event,
        sha=outcome.sha or delivery.sha,
        ref=outcome.ref or delivery.ref,
        head_ref=delivery.head_ref,
        actor=delivery.actor,
        message=delivery.message,
        number=delivery.number,
        fork=untrusted,
        approval_required=untrusted and repository.fork_pull_requests == "approve",
        jobs=planned_jobs(plan, None, run),
        secrets_withheld=secrets_withheld(repository, delivery, outcome.event),
    )
