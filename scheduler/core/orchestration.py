"""A run's DAG: which job is due, skipped, cancelled or over, and when the run is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from scheduler.core.evolve.jobs import RUN_OUTPUTS_BYTES_MAX, exceeds_outputs
from scheduler.core.evolve.runs import jobs_of
from scheduler.core.ids import about_job, about_run
from scheduler.core.index import Index
from scheduler.core.outputs import Cause, Order, Output
from scheduler.core.state import ACTIVE, LIVE, Job, JobPhase, Run, State
from scheduler.core.view import RunView, planned_jobs, sibling
from schemas import events as e
from schemas.codec import event_id
from schemas.ids import job_id
from schemas.lanes import CancelOrder
from schemas.workflow.errors import LanguageError
from schemas.workflow.matrix import Leg

ATTEMPTS_MAX = 3
FAIL_FAST = "cancel.fail_fast"


def begin(state: State, index: Index, run_id: str, cause: Cause) -> Iterator[Output]:
    """Start what needs nothing, in a run that was planned or approved just now."""
    run = state.runs[run_id]
    if run.awaits_approval:
        for job in jobs_of(state, run):
            if not index.view(state, run_id).jobs[job.key].needs and job.caller is None:
                yield e.JobBlocked(
                    **about_job(e.JobBlocked, run, job, cause, "approval"),
                    reason="approval",
                    detail="a fork's pull request: someone with write access has to approve it",
                )
        return
    yield from advance(state, index, run, jobs_of(state, run), cause)


def advance(
    state: State, index: Index, run: Run, candidates: Iterable[Job], cause: Cause
) -> Iterator[Output]:
    """Resolve every candidate whose needs are over, and what follows from that."""
    for job in candidates:
        if run.run_id not in state.runs:
            return
        if _is_due(state, index, run, job):
            yield from _resolve(state, index, run, job, cause)
    yield from _finish(state, run, cause)


def _is_due(state: State, index: Index, run: Run, job: Job) -> bool:
    if job.phase is not JobPhase.WAITING or job.parent is not None or job.attempt:
        return False
    if run.awaits_approval and not job.cancel:
        return False
    caller = state.jobs.get(job.caller)
    if caller is not None and caller.phase is not JobPhase.CALLED:
        return False
    view = index.view(state, run.run_id)
    needs = view.jobs[job.key].needs
    return all(state.jobs[sibling(job, key)].phase is JobPhase.DONE for key in needs)


def _resolve(state: State, index: Index, run: Run, job: Job, cause: Cause) -> Iterator[Output]:
    """Decide about one job whose needs are over: run, expand, skip, cancel or fail it."""
    view = index.view(state, run.run_id)
    try:
        if not view.holds(state, run, job):
            yield from _end_unrun(state, index, run, job, cause)
        elif (legs := view.legs(state, run, job)) is not None:
            yield from _expand(state, index, run, job, legs, cause)
        else:
            yield from _begin_job(state, index, run, job, cause)
    except LanguageError as error:
        yield e.JobFailed(
            **about_job(e.JobFailed, run, job, cause),
            reason="user.expression",
            message=f"{run.workflow}:{view.jobs[job.key].line}: job {job.key}: {error}",
        )
        yield from after_end(state, index, run, job, cause)


def _begin_job(state: State, index: Index, run: Run, job: Job, cause: Cause) -> Iterator[Output]:
    """Queue a job, or begin the workflow that it calls; raises LanguageError."""
    view = index.view(state, run.run_id)
    if view.jobs[job.key].uses is not None:
        yield from _call(state, index, run, job, cause)
    else:
        yield _schedule(state, index, view, run, job, cause, reason="first")


def _end_unrun(state: State, index: Index, run: Run, job: Job, cause: Cause) -> Iterator[Output]:
    if job.cancel:
        yield _cancelled(run, job, cause, job.cancel)
    else:
        yield e.JobSkipped(**about_job(e.JobSkipped, run, job, cause), reason="condition")
    yield from after_end(state, index, run, job, cause)


def _expand(
    state: State, index: Index, run: Run, job: Job, legs: tuple[Leg, ...], cause: Cause
) -> Iterator[Output]:
    view = index.view(state, run.run_id)
    made = []
    for number, values in enumerate(legs):
        matrix_json = json.dumps(values, ensure_ascii=False)
        leg = Job(
            job_id=job_id(run.run_id, job.key, number),
            run_id=run.run_id,
            key=job.key,
            name="",
            parent=job.job_id,
            caller=job.caller,
            leg=number,
            matrix_json=matrix_json,
        )
        name = view.leg_name(state, run, leg, values)
        made.append(e.Leg(job_id=leg.job_id, name=name, index=number, matrix_json=matrix_json))
    yield e.MatrixExpanded(**about_job(e.MatrixExpanded, run, job, cause), legs=tuple(made))
    yield from _next_legs(state, index, run, job, cause)


def _next_legs(state: State, index: Index, run: Run, matrix: Job, cause: Cause) -> Iterator[Output]:
    """Queue the legs that max-parallel has room for; say of the others that they wait for it."""
    view = index.view(state, run.run_id)
    limit = view.max_parallel(state, run, matrix)
    legs = [state.jobs[leg] for leg in matrix.legs]
    active = sum(leg.phase in ACTIVE for leg in legs)
    for leg in legs:
        if leg.phase is not JobPhase.WAITING or leg.attempt or leg.cancel:
            continue
        if limit is not None and active >= limit:
            if leg.blocked != "max_parallel":
                yield e.JobBlocked(
                    **about_job(e.JobBlocked, run, leg, cause, "max_parallel"),
                    reason="max_parallel",
                    detail=f"{limit} legs of {matrix.key} at once (max-parallel)",
                    blockers=(matrix.job_id,),
                )
            continue
        active += 1
        try:
            yield from _begin_job(state, index, run, leg, cause)
        except LanguageError as error:
            yield e.JobFailed(
                **about_job(e.JobFailed, run, leg, cause),
                reason="user.expression",
                message=f"{run.workflow}:{view.jobs[leg.key].line}: job {leg.key}: {error}",
            )
            yield from after_end(state, index, run, leg, cause)


def _call(state: State, index: Index, run: Run, job: Job, cause: Cause) -> Iterator[Output]:
    view = index.view(state, run.run_id)
    call = view.jobs[job.key].call
    if call is None:
        raise LanguageError(f"the workflow {view.jobs[job.key].uses} was not read at planning")
    inputs = view.call_inputs(state, run, job)
    yield e.WorkflowCalled(
        **about_job(e.WorkflowCalled, run, job, cause),
        workflow=call.path,
        inputs_json=json.dumps(inputs, ensure_ascii=False),
        jobs=planned_jobs(view.plan, job.key, job.job_id),
    )
    inner = [state.jobs[inner_id] for inner_id in job.called]
    yield from advance(state, index, run, inner, cause)


def _schedule(
    state: State,
    index: Index,
    view: RunView,
    run: Run,
    job: Job,
    cause: Cause,
    *,
    reason: str,
    excluded: tuple[str, ...] = (),
) -> e.JobScheduled:
    """Return the decision that queues the job's next attempt; raises LanguageError."""
    wanted, labels = view.runs_on(state, run, job)
    capabilities = view.capabilities(state, run, job)
    columns = about_job(e.JobScheduled, run, job, cause, job.attempt + 1)
    columns["attempt"] = job.attempt + 1
    return e.JobScheduled(
        **columns,
        name=job.name if job.parent else view.name(state, run, job),
        pool=_pool_for(state, index, run, wanted, labels, capabilities),
        labels=labels,
        capabilities=capabilities,
        reason=reason,
        excluded_runners=excluded,
        environment=view.environment(state, run, job),
    )


def _pool_for(
    state: State,
    index: Index,
    run: Run,
    wanted: str | None,
    labels: tuple[str, ...],
    capabilities: tuple[str, ...],
) -> str:
    """Return the first of the repository's pools whose labels include the job's.

    Among several, one with a runner that can do what the job needs comes first.
    """
    repository = state.repositories.get(run.repository)
    pools = repository.pools if repository else ("default",)
    if wanted in pools:
        return wanted
    serving = []
    for name in pools:
        configured = state.pools.get(name)
        served = set(configured.labels) if configured else set()
        runners = index.live_runners(state, name)
        for runner in runners:
            served.update(runner.labels)
        if served.issuperset(labels):
            if not capabilities or any(
                set(r.capabilities).issuperset(capabilities) for r in runners
            ):
                return name
            serving.append(name)
    return (*serving, *pools)[0]


def _cancelled(run: Run, job: Job, cause: Cause, reason: str) -> e.JobCancelled:
    return e.JobCancelled(
        **about_job(e.JobCancelled, run, job, cause), reason=reason, actor=job.cancel_actor
    )


def _finish(state: State, run: Run, cause: Cause) -> Iterator[Output]:
    if run.run_id in state.runs and run.open_jobs == 0:
        conclusion, reason = _conclusion(run, [state.jobs[job] for job in run.jobs])
        yield e.RunFinished(
            **about_run(e.RunFinished, run, cause),
            conclusion=conclusion,
            reason=reason,
            run_attempt=run.run_attempt,
        )


def _conclusion(run: Run, jobs: list[Job]) -> tuple[str, str]:
    """Return the run's conclusion and reason from its nodes (matrix jobs, not their legs)."""
    found = {e.Conclusion.SUCCESS if job.tolerated else job.conclusion for job in jobs}
    if run.cancel and e.Conclusion.CANCELLED in found:
        return e.Conclusion.CANCELLED, run.cancel
    if found & {e.Conclusion.FAILURE, e.Conclusion.TIMED_OUT}:
        return e.Conclusion.FAILURE, "a job failed"
    if e.Conclusion.CANCELLED in found:
        return e.Conclusion.CANCELLED, "a job was cancelled"
    if found == {e.Conclusion.SKIPPED}:
        return e.Conclusion.SKIPPED, "every job was skipped"
    return e.Conclusion.SUCCESS, ""


# --------------------------------------------------------------------------- ends of attempts


def after_end(state: State, index: Index, run: Run, job: Job, cause: Cause) -> Iterator[Output]:
    """Decide what follows a job that is terminal: siblings, dependants, callers, the run."""
    view = index.view(state, run.run_id)
    following: list[Job] = []
    node = job
    while True:
        if node.parent is not None:
            matrix = state.jobs[node.parent]
            if matrix.phase is not JobPhase.DONE:
                yield from _siblings(state, index, run, node, matrix, cause)
                break
            node = matrix
            continue
        following += [state.jobs[sibling(node, key)] for key in view.dependents[node.key]]
        caller = state.jobs.get(node.caller)
        if caller is None or caller.phase is not JobPhase.DONE:
            break
        node = caller
    yield from advance(state, index, run, following, cause)


def _siblings(
    state: State, index: Index, run: Run, leg: Job, matrix: Job, cause: Cause
) -> Iterator[Output]:
    """A leg ended and others have not: fail fast, or let the next one in."""
    failed = leg.conclusion in (e.Conclusion.FAILURE, e.Conclusion.TIMED_OUT)
    fail_fast = (
        failed and not leg.tolerated and index.view(state, run.run_id).fail_fast(state, run, matrix)
    )
    if not fail_fast:
        yield from _next_legs(state, index, run, matrix, cause)
        return
    yield e.CancelRequested(
        event_id=event_id("CancelRequested", matrix.job_id, FAIL_FAST),
        repository=run.repository,
        run_id=run.run_id,
        caused_by=cause.event_id,
        delivery_id=run.delivery_id,
        job_id=matrix.job_id,
        actor="scheduler",
        reason=FAIL_FAST,
    )
    yield from cancel(state, index, run, cause)


def cancel(state: State, index: Index, run: Run, cause: Cause) -> Iterator[Output]:
    """Act on cancel marks: end what has not begun, order the rest to stop."""
    due: list[Job] = []
    for job in jobs_of(state, run):
        if not job.cancel or run.run_id not in state.runs:
            continue
        if job.phase in LIVE:
            order = _cancel_order(state, job)
            if order is not None:
                yield order
        elif job.phase is JobPhase.QUEUED or (
            job.phase is JobPhase.WAITING and (job.attempt or job.parent)
        ):
            if not _survives(state, index, run, job):
                yield _cancelled(run, job, cause, job.cancel)
                yield from after_end(state, index, run, job, cause)
        elif job.phase is JobPhase.WAITING:
            due.append(job)
    yield from advance(state, index, run, due, cause)


def _survives(state: State, index: Index, run: Run, job: Job) -> bool:
    """Say whether a queued job's `if` holds in a cancelled run (`always()`, `cancelled()`)."""
    if not run.cancel or (job.parent is not None and job.cancel == FAIL_FAST):
        return False
    try:
        return index.view(state, run.run_id).holds(state, run, job)
    except LanguageError:
        return False


def _cancel_order(state: State, job: Job) -> Order | None:
    runner = state.runners.get(job.runner_id)
    if runner is None or not runner.live or runner.boot_id != job.boot_id:
        return None
    return Order(
        pool=runner.pool,
        lane=runner.lane,
        record=CancelOrder(
            order_id=event_id("CancelOrder", job.job_id, job.attempt),
            runner_id=runner.runner_id,
            boot_id=runner.boot_id,
            job_id=job.job_id,
            attempt=job.attempt,
            reason=job.cancel,
        ),
    )


def attempt_ended(
    state: State, index: Index, event: e.JobFinished, cause: Cause
) -> Iterator[Output]:
    """A live attempt reported its end: conclude the job, or try again after an infra failure."""
    job = state.jobs[event.job_id or ""]
    run = state.runs[job.run_id]
    if job.phase is JobPhase.DONE:
        yield from after_end(state, index, run, job, cause)
    elif job.cancel or event.conclusion == e.Conclusion.CANCELLED:
        late = event.conclusion == e.Conclusion.SUCCESS
        reason = "cancel.late" if late else job.cancel or event.reason or "cancel.runner"
        yield _cancelled(run, job, cause, reason)
        yield from after_end(state, index, run, job, cause)
    elif exceeds_outputs(run, event):
        yield e.JobFailed(
            **about_job(e.JobFailed, run, job, cause),
            reason="user.outputs_too_large",
            message=f"with this job's the run's outputs exceed {RUN_OUTPUTS_BYTES_MAX} bytes",
        )
        yield from after_end(state, index, run, job, cause)
    else:
        yield from try_again(state, index, run, job, cause, reason=event.reason)


def try_again(
    state: State, index: Index, run: Run, job: Job, cause: Cause, *, reason: str
) -> Iterator[Output]:
    """The job's infrastructure failed it: next attempt on another runner, up to the cutoff."""
    view = index.view(state, run.run_id)
    if job.cancel:
        yield _cancelled(run, job, cause, "infra.runner_lost")
        yield from after_end(state, index, run, job, cause)
        return
    if job.losses < ATTEMPTS_MAX:
        last = (job.runner_id,) if job.runner_id else ()
        excluded = tuple(dict.fromkeys((*job.excluded, *last)))
        why = f"retry.{reason}"
        try:
            again = _schedule(state, index, view, run, job, cause, reason=why, excluded=excluded)
        except LanguageError as error:
            reason = f"user.expression: {error}"
        else:
            yield again
            return
    yield e.JobFailed(
        **about_job(e.JobFailed, run, job, cause),
        reason=reason,
        message=f"given up after {job.losses} of {ATTEMPTS_MAX} attempts",
    )
    yield from after_end(state, index, run, job, cause)
