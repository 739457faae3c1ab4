"""Runners come, go and fall silent: welcomes, lost attempts, withdrawals and dismissals."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.core import deadlines, orchestration
from scheduler.core.ids import about_job
from scheduler.core.index import Index
from scheduler.core.outputs import Cause, Order, Output
from scheduler.core.state import LIVE, Armed, Job, JobPhase, Runner, State
from schemas import events as e
from schemas.codec import event_id
from schemas.lanes import Dismissed, Welcome, Withdraw

LOST = "infra.runner_lost"
RESTARTED = "infra.runner_restarted"
SILENT = "infra.runner_silent"


def dismissed_boot(event: e.RunnerJoined) -> Order:
    """Return the answer to a boot that is ignored for ever."""
    return Order(
        pool=event.pool,
        lane=event.lane,
        record=Dismissed(
            order_id=event.event_id,
            runner_id=event.runner_id or "",
            boot_id=event.boot_id or "",
            reason="this boot was lost or replaced; its attempts went elsewhere",
        ),
    )


def joined(state: State, event: e.RunnerJoined, cause: Cause) -> Iterator[Output]:
    """Welcome a boot (again), and close the leases of the runner's lower ones."""
    runner = state.runners[event.runner_id or ""]
    yield Order(
        pool=runner.pool,
        lane=runner.lane,
        record=Welcome(
            order_id=event.event_id,
            runner_id=runner.runner_id,
            boot_id=runner.boot_id,
            slots=runner.slots,
        ),
    )
    stale = [
        job
        for job in state.jobs
        if job.runner_id == runner.runner_id
        and job.phase in (JobPhase.ASSIGNED, JobPhase.STARTED)
        and job.boot_id != runner.boot_id
    ]
    yield from _lose(state, stale, RESTARTED, cause)


def gone(state: State, runner_id: str, boot_id: str, reason: str, cause: Cause) -> Iterator[Output]:
    """Close every lease of a boot that is lost or dismissed."""
    held = [
        job
        for job in state.jobs
        if job.runner_id == runner_id
        and job.boot_id == boot_id
        and job.phase in (JobPhase.ASSIGNED, JobPhase.STARTED)
    ]
    yield from _lose(state, held, reason, cause)


def _lose(state: State, jobs: list[Job], reason: str, cause: Cause) -> Iterator[Output]:
    for job in sorted(jobs, key=lambda job: job.sequence):
        run = state.runs[job.run_id]
        columns = about_job(e.AttemptLost, run, job, cause)
        columns["caused_by"] = cause.event_id
        yield e.AttemptLost(**columns, runner_id=job.runner_id, boot_id=job.boot_id, reason=reason)


def deadline(
    state: State, index: Index, event: e.DeadlinePassed, armed: Armed, cause: Cause
) -> Iterator[Output]:
    """Act on a deadline of an attempt that was still armed."""
    job = state.jobs.get(armed.subject)
    if job is None or job.phase not in LIVE:
        return
    runner = state.runners.get(job.runner_id)
    kind = deadlines.kind(event.deadline_id)
    if kind == deadlines.ACCEPT and runner is not None:
        yield _withdraw(job, runner)
    elif kind == deadlines.WITHDRAW and runner is not None:
        yield from _dismiss(state, job, runner, cause)
    elif kind == deadlines.GRACE:
        run = state.runs[job.run_id]
        yield from orchestration.try_again(state, index, run, job, cause, reason=LOST)


def _withdraw(job: Job, runner: Runner) -> Order:
    return Order(
        pool=runner.pool,
        lane=runner.lane,
        record=Withdraw(
            order_id=event_id("Withdraw", job.job_id, job.attempt),
            runner_id=job.runner_id or "",
            boot_id=job.boot_id or "",
            job_id=job.job_id,
            attempt=job.attempt,
            reason="not accepted in time",
        ),
    )


def _dismiss(state: State, job: Job, runner: Runner, cause: Cause) -> Iterator[Output]:
    if not runner.live or runner.boot_id != job.boot_id:
        return
    dismissed = e.RunnerDismissed(
        event_id=event_id("RunnerDismissed", runner.runner_id, runner.boot_id),
        runner_id=runner.runner_id,
        boot_id=runner.boot_id,
        caused_by=cause.event_id,
        reason=f"no answer to the assignment of {job.job_id}@{job.attempt}, nor to its withdrawal",
    )
    yield dismissed
    yield Order(
        pool=runner.pool,
        lane=runner.lane,
        record=Dismissed(
            order_id=dismissed.event_id,
            runner_id=runner.runner_id,
            boot_id=runner.boot_id,
            reason=dismissed.reason,
        ),
    )
    yield from gone(state, runner.runner_id, runner.boot_id, SILENT, cause)
