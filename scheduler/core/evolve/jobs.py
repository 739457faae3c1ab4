"""How a job goes from due to done, and with it the matrix or the call that it is a part of."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scheduler.core import deadlines, known
from scheduler.core.evolve.runs import add_jobs
from scheduler.core.index import Index
from scheduler.core.state import Armed, Job, JobPhase, Run, State
from schemas import events as e

#: Outputs of all jobs of a run: every dependant's assignment carries some of them.
RUN_OUTPUTS_BYTES_MAX = 512 * 1024

_TO_RESULT = {e.Conclusion.TIMED_OUT.value: e.Conclusion.CANCELLED.value}


def matrix_expanded(state: State, _: Index, event: e.MatrixExpanded) -> None:
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


def workflow_called(state: State, _: Index, event: e.WorkflowCalled) -> None:
    job = state.jobs[event.job_id or ""]
    job.phase = JobPhase.CALLED
    job.inputs_json = event.inputs_json
    job.called = [planned.job_id for planned in event.jobs]
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)
    add_jobs(state, job.run_id, event.jobs, job, event.event_id)


def job_scheduled(state: State, index: Index, event: e.JobScheduled) -> None:
    job = state.jobs[event.job_id or ""]
    if job.attempt:
        state.disarm(deadlines.grace(job.job_id, job.attempt))
    else:
        job.sequence = state.count("sequence")
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


def job_blocked(state: State, _: Index, event: e.JobBlocked) -> None:
    job = state.jobs[event.job_id or ""]
    job.blocked = event.reason
    state.jobs.put(job.job_id, job)


def job_assigned(state: State, _: Index, event: e.JobAssigned) -> None:
    job = state.jobs[event.job_id or ""]
    job.phase = JobPhase.ASSIGNED
    job.runner_id, job.boot_id = event.runner_id, event.boot_id
    job.blocked = ""
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)
    runner = state.runners[event.runner_id or ""]
    runner.leases[job.job_id] = job.attempt
    state.runners.put(runner.runner_id, runner)
    arm_for(state, job, deadlines.accept, event.accept_within_ms)


def arm_for(state: State, job: Job, name: Callable[[str, int], str], delay_ms: int) -> None:
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


def job_started(state: State, _: Index, event: e.JobStarted) -> None:
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


def assignment_declined(state: State, index: Index, event: e.AssignmentDeclined) -> None:
    job = state.jobs[event.job_id or ""]
    _answered(state, job)
    _free_slot(state, index, job)
    job.phase = JobPhase.WAITING
    job.losses += 1
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)


def job_finished(state: State, index: Index, event: e.JobFinished) -> None:
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


def job_skipped(state: State, index: Index, event: e.JobSkipped) -> None:
    conclude(state, index, event, e.Conclusion.SKIPPED)


def job_cancelled(state: State, index: Index, event: e.JobCancelled) -> None:
    conclude(state, index, event, e.Conclusion.CANCELLED)


def job_failed(state: State, index: Index, event: e.JobFailed) -> None:
    conclude(state, index, event, e.Conclusion.FAILURE)


def conclude(state: State, index: Index, event: e.Event, conclusion: e.Conclusion) -> None:
    job = state.jobs[event.job_id or ""]
    if job.attempt:
        _answered(state, job)
        state.disarm(deadlines.grace(job.job_id, job.attempt))
        _free_slot(state, index, job)
        index.touched_pools.add(job.pool)
    job.last_event = event.event_id
    _end(state, index, job, conclusion.value)


def attempt_lost(state: State, index: Index, event: e.AttemptLost) -> None:
    job = state.jobs[event.job_id or ""]
    _answered(state, job)
    _free_slot(state, index, job)
    job.phase = JobPhase.LOST
    job.losses += 1
    job.last_event = event.event_id
    state.jobs.put(job.job_id, job)
    arm_for(state, job, deadlines.grace, event.grace_ms)
