"""The only place that changes a cell's rows: one function per kind, for inputs and decisions alike.

Nothing is decided here and nothing is refused: `admission.refusal` was asked before. Evolving a
recorded history gives the state in which it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from scheduler.core import deadlines, known, variables
from scheduler.core.index import Index
from scheduler.core.state import (
    SEEN_DELIVERIES_MAX,
    Armed,
    Counter,
    Delivery,
    Job,
    JobPhase,
    Outcome,
    Plan,
    Pool,
    Remembered,
    Repository,
    Run,
    Runner,
    State,
)
from scheduler.core.view import event_json
from schemas import events as e

PLAN_DEADLINE_MS = 60_000
WITHDRAW_DEADLINE_MS = 15_000
#: Outputs of all jobs of a run: every dependant's assignment carries some of them.
RUN_OUTPUTS_BYTES_MAX = 512 * 1024

_FORK_EVENTS = ("pull_request", "pull_request_review", "pull_request_review_comment")
_PULL_REQUEST_END = "closed"
_ENDS_WITH_OTHERS = (JobPhase.DONE, JobPhase.LEGS, JobPhase.CALLED)
_TO_RESULT = {e.Conclusion.TIMED_OUT.value: e.Conclusion.CANCELLED.value}


def evolve(state: State, index: Index, event: e.Event) -> None:
    """Change the rows by one event."""
    EVOLVERS[type(event)](state, index, event)


def _nothing(state: State, index: Index, event: e.Event) -> None:
    """The kind says something to readers and changes nothing here."""


# --------------------------------------------------------------------------- deliveries


def _delivery_received(state: State, index: Index, event: e.DeliveryReceived) -> None:
    delivery_id = event.delivery_id or event.event_id
    _remember(state, index, event.repository, delivery_id)
    state.deliveries.put(
        delivery_id,
        Delivery(
            delivery_id=delivery_id,
            event_id=event.event_id,
            repository=event.repository,
            occurred_at=event.occurred_at,
            sequence=_count(state, "sequence"),
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


def _count(state: State, name: str) -> int:
    number = state.next_number(name)
    state.counters.put(name, Counter(number))
    return number


def _delivery_planned(state: State, _: Index, event: e.DeliveryPlanned) -> None:
    delivery = state.deliveries[event.delivery_id or ""]
    delivery.answered = True
    delivery.error = event.error
    delivery.github_json = event.github_json
    outcomes = tuple(
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
        )
        for w in event.workflows
        if w.outcome != e.Outcome.IGNORED
    )
    repository = state.repositories.get(event.repository)
    runs_forks = repository is None or repository.fork_pull_requests != "never"
    delivery.outcomes = tuple(
        outcome for outcome in outcomes if runs_forks or not is_untrusted(delivery, outcome.event)
    )
    delivery.withheld = len(delivery.outcomes) < len(outcomes)
    delivery.ignored = tuple(
        f"{w.path}: {w.reason}" if w.path else w.reason
        for w in event.workflows
        if w.outcome == e.Outcome.IGNORED
    )
    if delivery.withheld:
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


def _delivery_ignored(state: State, index: Index, event: e.DeliveryIgnored) -> None:
    if not event.reason.startswith("duplicate"):
        _close_delivery(state, index, event.delivery_id or "")


def _close_delivery(state: State, index: Index, delivery_id: str) -> None:
    delivery = state.deliveries.get(delivery_id)
    if delivery is None:
        return
    state.deliveries.drop(delivery_id)
    state.disarm(deadlines.plan(delivery_id))
    index.pending[delivery.repository].remove(delivery_id)


def _outcome_handled(state: State, index: Index, delivery: Delivery) -> None:
    delivery.handled += 1
    state.deliveries.put(delivery.delivery_id, delivery)
    if delivery.handled >= len(delivery.outcomes):
        _close_delivery(state, index, delivery.delivery_id)


def _run_rejected(state: State, index: Index, event: e.RunRejected) -> None:
    if event.run_number:
        _count(state, number_name(event.repository, event.workflow))
    delivery = state.deliveries.get(event.delivery_id)
    if delivery is not None:
        _outcome_handled(state, index, delivery)


def number_name(repository: str, workflow: str) -> str:
    """Return the name of the counter that numbers a workflow's runs."""
    return f"run_number/{repository}/{workflow}"


def _run_planned(state: State, index: Index, event: e.RunPlanned) -> None:
    run_id = event.run_id or ""
    _count(state, number_name(event.repository, event.workflow))
    delivery = state.deliveries[event.delivery_id or ""]
    outcome = next(
        o for o in delivery.outcomes
        if o.path == event.workflow and (o.event or delivery.event) == event.event
    )  # fmt: skip
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
    _add_jobs(state, run_id, event.jobs, None, event.event_id)
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
    _outcome_handled(state, index, delivery)


def _add_jobs(
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


def _run_approved(state: State, _: Index, event: e.RunApproved) -> None:
    run = state.runs.get(event.run_id)
    if run is not None:
        run.awaits_approval = False
        state.runs.put(run.run_id, run)


def _run_finished(state: State, index: Index, event: e.RunFinished) -> None:
    run = state.runs.get(event.run_id)
    if run is None:
        return
    for job in jobs_of(state, run):
        state.jobs.drop(job.job_id)
    state.plans.drop(run.run_id)
    state.runs.drop(run.run_id)
    index.views.pop(run.run_id, None)


def _cancel_requested(state: State, _: Index, event: e.CancelRequested) -> None:
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


# --------------------------------------------------------------------------- jobs


def _matrix_expanded(state: State, _: Index, event: e.MatrixExpanded) -> None:
    job = state.jobs[event.job_id or ""]
    job.phase = JobPhase.LEGS
    job.legs = [leg.job_id for leg in event.legs]
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)
    for leg in event.legs:
        state.jobs.put(
            leg.job_id,
            Job(
                job_id=leg.job_id,
                run_id=job.run_id,
                key=job.key,
                name=leg.name,
                parent=job.job_id,
                leg=leg.index,
                matrix_json=leg.matrix_json,
                cancel=job.cancel,
                cancel_actor=job.cancel_actor,
                last_event=event.event_id,
            ),
        )


def _workflow_called(state: State, _: Index, event: e.WorkflowCalled) -> None:
    job = state.jobs[event.job_id or ""]
    job.phase = JobPhase.CALLED
    job.inputs_json = event.inputs_json
    job.called = [planned.job_id for planned in event.jobs]
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)
    _add_jobs(state, job.run_id, event.jobs, job, event.event_id)


def _job_scheduled(state: State, index: Index, event: e.JobScheduled) -> None:
    job = state.jobs[event.job_id or ""]
    if job.attempt:
        state.disarm(deadlines.grace(job.job_id, job.attempt))
    else:
        job.sequence = _count(state, "sequence")
    job.phase = JobPhase.QUEUED
    job.attempt = event.attempt or 1
    job.name, job.pool, job.labels = event.name, event.pool, event.labels
    job.capabilities = event.capabilities
    job.environment = event.environment
    job.runner_id = job.boot_id = None
    job.excluded = list(event.excluded_runners)
    job.blocked = ""
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)
    index.enqueue(job)


def _job_blocked(state: State, _: Index, event: e.JobBlocked) -> None:
    job = state.jobs[event.job_id or ""]
    job.blocked = event.reason
    state.jobs.put(job.job_id, job)


def _job_assigned(state: State, _: Index, event: e.JobAssigned) -> None:
    job = state.jobs[event.job_id or ""]
    job.phase = JobPhase.ASSIGNED
    job.runner_id, job.boot_id = event.runner_id, event.boot_id
    job.blocked = ""
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)
    runner = state.runners[event.runner_id or ""]
    runner.leases[job.job_id] = job.attempt
    state.runners.put(runner.runner_id, runner)
    _arm_for(state, job, deadlines.accept, event.accept_within_ms)


def _arm_for(state: State, job: Job, name: Callable[[str, int], str], delay_ms: int) -> None:
    state.arm(
        Armed(
            deadline_id=name(job.job_id, job.attempt),
            delay_ms=delay_ms,
            caused_by=job.last_event,
            subject=job.job_id,
            repository=state.runs[job.run_id].repository,
            run_id=job.run_id,
        )
    )


def _answered(state: State, job: Job) -> None:
    state.disarm(deadlines.accept(job.job_id, job.attempt))
    state.disarm(deadlines.withdraw(job.job_id, job.attempt))


def _job_started(state: State, _: Index, event: e.JobStarted) -> None:
    job = state.jobs[event.job_id or ""]
    job.phase = JobPhase.STARTED
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)
    _answered(state, job)
    run = state.runs[job.run_id]
    if not run.told_progress and known.wanted(state, run, known.IN_PROGRESS):
        run.told_progress = True
        state.runs.put(run.run_id, run)


def _free_slot(state: State, index: Index, job: Job) -> None:
    runner = state.runners.get(job.runner_id)
    if runner is not None and runner.leases.get(job.job_id) == job.attempt:
        del runner.leases[job.job_id]
        state.runners.put(runner.runner_id, runner)
        index.touched_pools.add(runner.pool)


def _assignment_declined(state: State, index: Index, event: e.AssignmentDeclined) -> None:
    job = state.jobs[event.job_id or ""]
    _answered(state, job)
    _free_slot(state, index, job)
    job.phase = JobPhase.WAITING
    job.losses += 1
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)


def _job_finished(state: State, index: Index, event: e.JobFinished) -> None:
    job = state.jobs[event.job_id or ""]
    _answered(state, job)
    state.disarm(deadlines.grace(job.job_id, job.attempt))
    _free_slot(state, index, job)
    job.last_event = event.event_id
    job.conclusion, job.outputs = event.conclusion, dict(event.outputs)
    job.phase = JobPhase.WAITING  # until the decision that follows ends or repeats it
    state.jobs.put(job.job_id, job)
    if event.conclusion == e.Conclusion.CANCELLED or job.cancel:
        return  # JobCancelled follows
    if event.reason.startswith("infra."):
        job.losses += 1
        return  # JobScheduled or JobFailed follows
    if exceeds_outputs(state.runs[job.run_id], event):
        job.outputs = {}
        return  # JobFailed follows
    _end(state, index, job, event.conclusion)


def exceeds_outputs(run: Run, event: e.JobFinished) -> bool:
    """Say whether a job's outputs are more than its run has room for."""
    size = sum(len(name) + len(text) for name, text in event.outputs.items())
    return run.outputs_bytes + size > RUN_OUTPUTS_BYTES_MAX


def _end(state: State, index: Index, job: Job, conclusion: str) -> None:
    """Make the job terminal and, with its last leg, the matrix job that it belongs to."""
    run = state.runs[job.run_id]
    job.phase = JobPhase.DONE
    job.conclusion = conclusion
    job.result = _TO_RESULT.get(conclusion, conclusion)
    if conclusion in (e.Conclusion.FAILURE, e.Conclusion.TIMED_OUT):
        view = index.view(state, run.run_id)
        job.tolerated = view.tolerates_failure(state, run, job)
        if job.tolerated:
            job.result = e.Conclusion.SUCCESS.value
    state.jobs.put(job.job_id, job)
    run.outputs_bytes += sum(len(k) + len(v) for k, v in job.outputs.items())
    state.runs.put(run.run_id, run)
    _end_whole(state, index, run, job)


def _end_whole(state: State, index: Index, run: Run, part: Job) -> None:
    """Count a terminal job; end the matrix or the caller whose last part it was."""
    if part.parent is not None:
        whole = state.jobs[part.parent]
        parts = [state.jobs[leg] for leg in whole.legs]
    elif part.caller is not None:
        whole = state.jobs[part.caller]
        parts = [state.jobs[inner] for inner in whole.called]
    else:
        run.open_jobs -= 1
        return
    if whole.phase is JobPhase.DONE or any(job.phase is not JobPhase.DONE for job in parts):
        return
    whole.phase = JobPhase.DONE
    whole.result = _worst(job.result for job in parts)
    whole.conclusion = _worst(
        e.Conclusion.SUCCESS.value if job.tolerated else job.conclusion for job in parts
    )
    if part.parent is not None:
        for leg in parts:  # as on GitHub the last leg that sets an output wins
            whole.outputs.update({name: text for name, text in leg.outputs.items() if text})
    else:
        whole.outputs = index.view(state, run.run_id).call_outputs(state, run, whole)
    state.jobs.put(whole.job_id, whole)
    _end_whole(state, index, run, whole)


_SEVERITY = ("failure", "timed_out", "cancelled", "success", "skipped")


def _worst(conclusions: Iterable[str]) -> str:
    found = set(conclusions)
    return next((name for name in _SEVERITY if name in found), "success")


def _job_skipped(state: State, index: Index, event: e.JobSkipped) -> None:
    _conclude(state, index, event, e.Conclusion.SKIPPED)


def _job_cancelled(state: State, index: Index, event: e.JobCancelled) -> None:
    _conclude(state, index, event, e.Conclusion.CANCELLED)


def _job_failed(state: State, index: Index, event: e.JobFailed) -> None:
    _conclude(state, index, event, e.Conclusion.FAILURE)


def _conclude(state: State, index: Index, event: e.Event, conclusion: e.Conclusion) -> None:
    job = state.jobs[event.job_id or ""]
    if job.attempt:
        _answered(state, job)
        state.disarm(deadlines.grace(job.job_id, job.attempt))
        _free_slot(state, index, job)
        index.touched_pools.add(job.pool)
    job.last_event = event.event_id
    _end(state, index, job, conclusion.value)


def _attempt_lost(state: State, index: Index, event: e.AttemptLost) -> None:
    job = state.jobs[event.job_id or ""]
    _answered(state, job)
    _free_slot(state, index, job)
    job.phase = JobPhase.LOST
    job.losses += 1
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)
    _arm_for(state, job, deadlines.grace, event.grace_ms)


# --------------------------------------------------------------------------- runners, settings


def _runner_joined(state: State, index: Index, event: e.RunnerJoined) -> None:
    runner_id = event.runner_id or ""
    known = state.runners.get(runner_id)
    if known is not None and known.boot_id == event.boot_id:
        return
    if known is not None:
        index.pools[known.pool].runners.discard(runner_id)
    state.runners.put(
        runner_id,
        Runner(
            runner_id=runner_id,
            boot_id=event.boot_id or "",
            pool=event.pool,
            labels=tuple(sorted(label.lower() for label in event.labels)),
            slots=event.slots,
            lane=event.lane,
            name=event.name or runner_id,
            capabilities=tuple(sorted(event.capabilities)),
        ),
    )
    index.pools[event.pool].runners.add(runner_id)
    index.touched_pools.add(event.pool)


def _runner_gone(state: State, index: Index, event: e.RunnerLost | e.RunnerDismissed) -> None:
    runner = state.runners.get(event.runner_id)
    if runner is None or runner.boot_id != event.boot_id:
        return
    runner.live = False
    state.runners.put(runner.runner_id, runner)
    index.pools[runner.pool].runners.discard(runner.runner_id)
    index.touched_pools.add(runner.pool)


def _repository_configured(state: State, _: Index, event: e.RepositoryConfigured) -> None:
    row = state.repositories.get(event.repository) or Repository(name=event.repository)
    row.provider, row.clone_url = event.provider, event.clone_url
    row.default_branch, row.pools = event.default_branch, event.pools
    row.fork_pull_requests, row.fork_secrets = event.fork_pull_requests, event.fork_secrets
    row.removed = False
    state.repositories.put(event.repository, row)
    variables.were_configured(state, event)


def _repository_removed(state: State, _: Index, event: e.RepositoryRemoved) -> None:
    row = state.repositories.get(event.repository)
    if row is not None:
        row.removed = True
        state.repositories.put(row.name, row)
        known.forgotten(state, row.name)


def _workflows_indexed(state: State, _: Index, event: e.WorkflowsIndexed) -> None:
    known.indexed(state, event)


def _variable_set(state: State, _: Index, event: e.VariableSet) -> None:
    variables.was_set(state, event)


def _variable_removed(state: State, _: Index, event: e.VariableRemoved) -> None:
    variables.was_removed(state, event)


def _pool_configured(state: State, index: Index, event: e.PoolConfigured) -> None:
    labels = tuple(sorted(label.lower() for label in event.labels))
    state.pools.put(event.pool, Pool(name=event.pool, labels=labels))
    index.touched_pools.add(event.pool)


def _deadline_passed(state: State, _: Index, event: e.DeadlinePassed) -> None:
    armed = state.armed.get(event.deadline_id)
    if armed is None:
        return
    state.disarm(event.deadline_id)
    if deadlines.kind(event.deadline_id) == deadlines.CRON:
        known.ticked(state, armed, event.occurred_at)
        return
    job = state.jobs.get(armed.subject)
    if job is not None and deadlines.kind(event.deadline_id) == deadlines.ACCEPT:
        _arm_for(state, job, deadlines.withdraw, WITHDRAW_DEADLINE_MS)


Evolver = Callable[[State, Index, Any], None]

EVOLVERS: dict[type[e.Event], Evolver] = {
    e.DeliveryReceived: _delivery_received,
    e.DeliveryPlanned: _delivery_planned,
    e.DeliveryIgnored: _delivery_ignored,
    e.WorkflowsIndexed: _workflows_indexed,
    e.RunPlanned: _run_planned,
    e.RunRejected: _run_rejected,
    e.RunApproved: _run_approved,
    e.RunFinished: _run_finished,
    e.MatrixExpanded: _matrix_expanded,
    e.WorkflowCalled: _workflow_called,
    e.JobScheduled: _job_scheduled,
    e.JobBlocked: _job_blocked,
    e.JobAssigned: _job_assigned,
    e.JobStarted: _job_started,
    e.StepStarted: _nothing,
    e.StepFinished: _nothing,
    e.JobFinished: _job_finished,
    e.JobSkipped: _job_skipped,
    e.JobCancelled: _job_cancelled,
    e.JobFailed: _job_failed,
    e.CancelRequested: _cancel_requested,
    e.AssignmentDeclined: _assignment_declined,
    e.AttemptLost: _attempt_lost,
    e.StaleReport: _nothing,
    e.SecretsReleased: _nothing,
    e.ArtifactUploaded: _nothing,
    e.LogArchived: _nothing,
    e.RunnerJoined: _runner_joined,
    e.RunnerLost: _runner_gone,
    e.RunnerDismissed: _runner_gone,
    e.RepositoryConfigured: _repository_configured,
    e.RepositoryRemoved: _repository_removed,
    e.PoolConfigured: _pool_configured,
    e.VariableSet: _variable_set,
    e.VariableRemoved: _variable_removed,
    e.SchedulerStarted: _nothing,
    e.DeadlinePassed: _deadline_passed,
}
