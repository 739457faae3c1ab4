"""How deliveries and runs come, change and go."""

from __future__ import annotations

from scheduler.core import deadlines
from scheduler.core.index import Index
from scheduler.core.state import (
    SEEN_DELIVERIES_MAX,
    Armed,
    Delivery,
    Job,
    JobPhase,
    Outcome,
    Plan,
    Remembered,
    Repository,
    Run,
    State,
)
from scheduler.core.view import event_json
from schemas import events as e

PLAN_DEADLINE_MS = 60_000

_FORK_EVENTS = ("pull_request", "pull_request_review", "pull_request_review_comment")
_PULL_REQUEST_END = "closed"
_ENDS_WITH_OTHERS = (JobPhase.DONE, JobPhase.LEGS, JobPhase.CALLED)


def delivery_received(state: State, index: Index, event: e.DeliveryReceived) -> None:
    delivery_id = event.delivery_id or event.event_id
    _remember(state, index, event.repository, delivery_id)
    state.deliveries.put(
        delivery_id,
        Delivery(
            delivery_id=delivery_id,
            event_id=event.event_id,
            repository=event.repository,
            occurred_at=event.occurred_at,
            sequence=state.count("sequence"),
            event=event.event,
            actor=event.actor,
            message=event.message,
            head_ref=event.head_ref,
            number=event.number,
            fork=event.fork,
            ref=event.ref,
            sha=event.sha,
            payload_json=event.payload_json,
            payload_uri=event.payload_uri,
            chain=event.chain,
        ),
    )
    index.pending[event.repository].append(delivery_id)
    if event.number and event.event.startswith("pull_request"):
        head = f"{event.repository}#{event.number}"
        if event.action == _PULL_REQUEST_END:
            state.heads.drop(head)
        else:
            state.heads.put(head, Remembered(event.sha))
    state.arm(
        Armed(
            deadline_id=deadlines.plan(delivery_id),
            delay_ms=PLAN_DEADLINE_MS,
            caused_by=event.event_id,
            subject=delivery_id,
            repository=event.repository,
        )
    )


def _remember(state: State, index: Index, repository: str, delivery_id: str) -> None:
    row = state.repositories.get(repository) or Repository(name=repository)
    slot = f"{repository}#{row.seen_next % SEEN_DELIVERIES_MAX}"
    oldest = state.seen.get(slot)
    if oldest is not None:
        index.seen[repository].discard(oldest.value)
    state.seen.put(slot, Remembered(delivery_id))
    index.seen[repository].add(delivery_id)
    row.seen_next += 1
    state.repositories.put(repository, row)


def delivery_planned(state: State, index: Index, event: e.DeliveryPlanned) -> None:
    # an input: what was decided about those before it, as recorded, has been evolved
    for closed in index.closed.pop(event.repository, ()):
        state.deliveries.drop(closed)
    delivery = state.deliveries[event.delivery_id or ""]
    delivery.answered = True
    delivery.error = event.error
    delivery.github_json = event.github_json
    repository = state.repositories.get(event.repository)
    runs_forks = repository is None or repository.fork_pull_requests != "never"
    delivery.outcomes = tuple(
        Outcome(
            path=w.path,
            outcome=w.outcome,
            name=w.name,
            reason=w.reason,
            plan_json=w.plan_json,
            problems=tuple((p.path, p.line, p.column, p.message) for p in w.problems),
            event=w.event,
            sha=w.sha,
            ref=w.ref,
            inputs_json=w.inputs_json,
            # marked, not dropped: a run of it that is recorded finds it, whatever the setting is
            withheld=not runs_forks and is_untrusted(delivery, w.event),
        )
        for w in event.workflows
        if w.outcome != e.Outcome.IGNORED
    )
    delivery.ignored = tuple(
        f"{w.path}: {w.reason}" if w.path else w.reason
        for w in event.workflows
        if w.outcome == e.Outcome.IGNORED
    )
    if any(outcome.withheld for outcome in delivery.outcomes):
        delivery.ignored = ("this repository runs nothing for forks", *delivery.ignored)
    state.deliveries.put(delivery.delivery_id, delivery)
    state.disarm(deadlines.plan(delivery.delivery_id))


def is_untrusted(delivery: Delivery, event: str) -> bool:
    """Say whether an outcome runs code of a fork: `pull_request_target` runs the base's."""
    return delivery.fork and (event or delivery.event) in _FORK_EVENTS


def secrets_withheld(repository: Repository, delivery: Delivery, event: str) -> str:
    """Return why a run of an outcome gets no secrets, "" when it does.

    What a fork's pull request starts without being its code is the base's own workflow, but it
    reads what the fork wrote: titles, branches, artifacts, and the commit if it checks that out.
    So it gets none unless the repository says otherwise.
    """
    if is_untrusted(delivery, event):
        return "fork"
    return "fork_event" if delivery.fork and repository.fork_secrets != "base" else ""


def delivery_ignored(state: State, index: Index, event: e.DeliveryIgnored) -> None:
    delivery = state.deliveries.get(event.delivery_id)
    if delivery is not None and not event.reason.startswith("duplicate"):
        _close(state, index, delivery)
        state.deliveries.drop(delivery.delivery_id)


def _close(state: State, index: Index, delivery: Delivery) -> None:
    if delivery.closed:
        index.closed[delivery.repository].remove(delivery.delivery_id)
        return
    state.disarm(deadlines.plan(delivery.delivery_id))
    index.pending[delivery.repository].remove(delivery.delivery_id)


def _outcome_of(delivery: Delivery, workflow: str, event: str) -> Outcome | None:
    for outcome in delivery.outcomes:
        if outcome.path == workflow and (outcome.event or delivery.event) == event:
            return outcome
    return None


def _outcome_handled(
    state: State, index: Index, delivery: Delivery, outcome: Outcome | None
) -> None:
    """Close the delivery with the last outcome that is acted on."""
    if outcome is None or not outcome.withheld:
        delivery.handled += 1
    withheld = sum(outcome.withheld for outcome in delivery.outcomes)
    done = delivery.handled >= len(delivery.outcomes) - withheld
    if done and not withheld:
        _close(state, index, delivery)
        state.deliveries.drop(delivery.delivery_id)
        return
    if done and not delivery.closed:
        _close(state, index, delivery)
        delivery.closed = True
        index.closed[delivery.repository].append(delivery.delivery_id)
    state.deliveries.put(delivery.delivery_id, delivery)


def run_rejected(state: State, index: Index, event: e.RunRejected) -> None:
    if event.run_number:
        state.count(number_name(event.repository, event.workflow))
    delivery = state.deliveries.get(event.delivery_id)
    if delivery is not None:
        outcome = _outcome_of(delivery, event.workflow, event.event)
        _outcome_handled(state, index, delivery, outcome)


def number_name(repository: str, workflow: str) -> str:
    """Return the name of the counter that numbers a workflow's runs."""
    return f"run_number/{repository}/{workflow}"


def run_planned(state: State, index: Index, event: e.RunPlanned) -> None:
    run_id = event.run_id or ""
    state.count(number_name(event.repository, event.workflow))
    delivery = state.deliveries[event.delivery_id or ""]
    outcome = _outcome_of(delivery, event.workflow, event.event)
    if outcome is None:
        raise ValueError(
            f"run {run_id}: the planner's answer to delivery {delivery.delivery_id} has no "
            f"{event.workflow} for {event.event}"
        )
    state.plans.put(
        run_id,
        Plan(
            run_id=run_id,
            plan_json=outcome.plan_json or "",
            github_json=delivery.github_json,
            inputs_json=outcome.inputs_json,
            payload_json=event_json(
                delivery.payload_json, event.event, event.workflow, outcome.inputs_json
            ),
            payload_uri=delivery.payload_uri,
            event=event.event,
            sha=event.sha,
            ref=event.ref,
            actor=event.actor,
            workflow_name=event.workflow_name,
            run_name=event.run_name,
            head_ref=delivery.head_ref,
            head_sha=delivery.sha or event.sha,
            number=event.number,
            from_fork=delivery.fork,
            chain=delivery.chain,
        ),
    )
    add_jobs(state, run_id, event.jobs, None, event.event_id)
    state.runs.put(
        run_id,
        Run(
            run_id=run_id,
            repository=event.repository,
            delivery_id=delivery.delivery_id,
            workflow=event.workflow,
            run_number=event.run_number,
            planned_id=event.event_id,
            run_attempt=event.run_attempt,
            fork=event.fork,
            secrets_withheld=event.secrets_withheld or ("fork" if event.fork else ""),
            awaits_approval=event.approval_required,
            open_jobs=len(event.jobs),
            jobs=[planned.job_id for planned in event.jobs],
        ),
    )
    _outcome_handled(state, index, delivery, outcome)


def add_jobs(
    state: State, run_id: str, jobs: tuple[e.PlannedJob, ...], caller: Job | None, event_id: str
) -> None:
    for planned in jobs:
        state.jobs.put(
            planned.job_id,
            Job(
                job_id=planned.job_id,
                run_id=run_id,
                key=planned.key,
                name=planned.name,
                caller=caller.job_id if caller else None,
                cancel=caller.cancel if caller else "",
                cancel_actor=caller.cancel_actor if caller else "",
                last_event=event_id,
            ),
        )


def run_approved(state: State, _: Index, event: e.RunApproved) -> None:
    run = state.runs.get(event.run_id)
    if run is not None:
        run.awaits_approval = False
        state.runs.put(run.run_id, run)


def run_finished(state: State, index: Index, event: e.RunFinished) -> None:
    run = state.runs.get(event.run_id)
    if run is None:
        return
    for job in jobs_of(state, run):
        state.jobs.drop(job.job_id)
    state.plans.drop(run.run_id)
    state.runs.drop(run.run_id)
    index.views.pop(run.run_id, None)


def cancel_requested(state: State, _: Index, event: e.CancelRequested) -> None:
    run = state.runs.get(event.run_id)
    if run is None:
        return
    reason = event.reason or "cancel.requested"
    if event.job_id is None:
        run.cancel, run.cancel_actor = reason, event.actor
        state.runs.put(run.run_id, run)
    for job in jobs_of(state, run):
        if event.job_id is not None and not is_part_of(job.job_id, event.job_id):
            continue
        if job.phase not in _ENDS_WITH_OTHERS and not job.cancel:
            job.cancel, job.cancel_actor = reason, event.actor
            state.jobs.put(job.job_id, job)


def is_part_of(job_id: str, whole: str) -> bool:
    """Say whether a job is another one, a leg of it, or called by it (at any depth)."""
    return job_id == whole or job_id.startswith(f"{whole}.")


def jobs_of(state: State, run: Run) -> list[Job]:
    """Return the run's jobs in plan order, each followed by its legs and the jobs it called."""
    found: list[Job] = []
    waiting = list(reversed(run.jobs))
    while waiting:
        job = state.jobs[waiting.pop()]
        found.append(job)
        waiting += reversed((*job.legs, *job.called))
    return found
