"""Jobs and attempts by the scheduler's word: queued, assigned, blocked, ended."""

from __future__ import annotations

from projector.rows.runs import parsed, run_of
from projector.rows.working import At
from projector.tables import Attempt, Job, Status
from schemas import events as e
from schemas.lifecycle import Phase, after


def job_of(at: At, event: e.Event, job_id: str | None = None) -> Job:
    job_id = job_id or event.job_id or ""
    row = at.find(Job, job_id)
    if row is None:
        key = job_id.removeprefix(f"{event.run_id}.")
        row = Job(job_id=job_id, run_id=event.run_id or "", key=key, name=key)
        row.repository = event.repository
    at.touch(row)
    run_of(at, event)
    return row


def live_attempt(at: At, job: Job) -> Attempt | None:
    return at.find(Attempt, job.job_id, job.live_attempt) if job.live_attempt else None


def matrix_expanded(at: At, event: e.MatrixExpanded) -> None:
    node = job_of(at, event)
    node.expanded = True
    for leg in event.legs:
        job = job_of(at, event, leg.job_id)
        job.key, job.name, job.position = node.key, leg.name, node.position
        job.needs, job.matrix_of, job.leg = node.needs, node.job_id, leg.index
        job.matrix = parsed(leg.matrix_json)


def job_scheduled(at: At, event: e.JobScheduled) -> None:
    job = job_of(at, event)
    number = event.attempt or 0
    if number <= job.live_attempt:
        return
    before = live_attempt(at, job)
    if before is not None:
        end_by_decision(at, before, event, e.Conclusion.FAILURE, before.reason)
    at.touch(
        Attempt(
            job_id=job.job_id,
            attempt=number,
            run_id=job.run_id,
            repository=job.repository,
            pool=event.pool,
            scheduled_because=event.reason,
            queued_at=event.occurred_at,
        )
    )
    job.live_attempt, job.pool, job.labels = number, event.pool, list(event.labels)
    job.name = event.name or job.name
    job.status, job.conclusion, job.reason, job.message = Status.QUEUED, None, "", ""
    job.queued_at, job.started_at, job.finished_at = event.occurred_at, None, None
    job.outputs, job.summary = {}, ""
    unblock(job)
    run = run_of(at, event)
    if run.status == Status.WAITING:
        run.status = Status.QUEUED


def job_blocked(at: At, event: e.JobBlocked) -> None:
    job = job_of(at, event)
    if job.status in (Status.WAITING, Status.QUEUED):
        job.blocked_reason, job.blocked_detail = event.reason, event.detail
        job.blockers = list(event.blockers)


def unblock(job: Job) -> None:
    job.blocked_reason, job.blocked_detail, job.blockers = None, "", []


def job_assigned(at: At, event: e.JobAssigned) -> None:
    job = job_of(at, event)
    attempt = live_attempt(at, job)
    if attempt is None or event.attempt != job.live_attempt or not moves(attempt, event):
        return
    attempt.runner_id, attempt.boot_id = event.runner_id, event.boot_id
    attempt.assigned_at = event.occurred_at
    at.touch(attempt)
    job.status = Status.ASSIGNED
    unblock(job)


def attempt_lost(at: At, event: e.AttemptLost) -> None:
    job = job_of(at, event)
    attempt = live_attempt(at, job)
    if attempt is None or event.attempt != job.live_attempt or not moves(attempt, event):
        return
    attempt.reason, attempt.lost_at = event.reason, event.occurred_at
    at.touch(attempt)


def job_skipped(at: At, event: e.JobSkipped) -> None:
    conclude(at, event, e.Conclusion.SKIPPED, event.reason)


def job_cancelled(at: At, event: e.JobCancelled) -> None:
    conclude(at, event, e.Conclusion.CANCELLED, event.reason)


def job_failed(at: At, event: e.JobFailed) -> None:
    job = conclude(at, event, e.Conclusion.FAILURE, event.reason)
    job.message = event.message
    attempt = live_attempt(at, job)
    if attempt is not None and attempt.reason == event.reason and not attempt.message:
        attempt.message = event.message
        at.touch(attempt)


def conclude(at: At, event: e.Event, conclusion: str, reason: str) -> Job:
    """End a job by the scheduler's word, which outranks what its attempt said."""
    job = job_of(at, event)
    attempt = live_attempt(at, job)
    if attempt is not None:
        end_by_decision(at, attempt, event, conclusion, reason)
    job.status, job.conclusion, job.reason = Status.COMPLETED, conclusion, reason
    job.finished_at = job.finished_at or event.occurred_at
    unblock(job)
    return job


def end_by_decision(at: At, attempt: Attempt, event: e.Event, conclusion: str, reason: str) -> None:
    if not moves(attempt, event):
        return
    attempt.conclusion, attempt.reason = conclusion, reason
    attempt.finished_at = attempt.lost_at or event.occurred_at
    at.touch(attempt)


def moves(attempt: Attempt, event: e.Event) -> bool:
    """Move the attempt to its next phase; False when the event is refused there."""
    phase = after(Phase(attempt.phase), type(event).__name__)
    if phase is None:
        return False
    attempt.phase = phase
    return True
