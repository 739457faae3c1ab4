"""Jobs and attempts by their runner's word, which counts only from the live attempt."""

from __future__ import annotations

import hashlib

from projector.rows.jobs import moves
from projector.rows.runs import run_of
from projector.rows.working import At
from projector.tables import Annotation, Artifact, Attempt, Job, LogSegment, Status, Step
from schemas import events as e
from schemas.lifecycle import token_matches


def reported(at: At, event: e.Event) -> tuple[Job, Attempt] | None:
    """Return the live job and attempt of a report, None when it is refused."""
    job = at.find(Job, event.job_id)
    if job is None or not job.live_attempt or event.attempt != job.live_attempt:
        return None
    attempt = at.find(Attempt, job.job_id, job.live_attempt)
    if attempt is None or not token_matches(
        (attempt.attempt, attempt.runner_id, attempt.boot_id),
        (event.attempt, event.runner_id, event.boot_id),
    ):
        return None
    if not moves(attempt, event):
        return None
    at.touch(job)
    at.touch(attempt)
    run_of(at, event)
    return job, attempt


def job_started(at: At, event: e.JobStarted) -> None:
    found = reported(at, event)
    if found is None:
        return
    job, attempt = found
    attempt.started_at, attempt.isolation = event.occurred_at, event.isolation
    attempt.runner_name = event.runner_name
    job.status, job.started_at = Status.RUNNING, event.occurred_at
    run_is_running(at, event, event.occurred_at)


def run_is_running(at: At, event: e.Event, since: int) -> None:
    run = run_of(at, event)
    if run.status != Status.COMPLETED:
        run.status = Status.RUNNING
    if run.started_at is None:
        run.started_at = since


def step_started(at: At, event: e.StepStarted) -> None:
    found = reported(at, event)
    if found is None:
        return
    row = step(at, found[1], event)
    row.started_at = event.started_at or event.occurred_at
    at.put(row)


def step_finished(at: At, event: e.StepFinished) -> None:
    found = reported(at, event)
    if found is None:
        return
    row = step(at, found[1], event)
    row.status, row.conclusion, row.outcome = Status.COMPLETED, event.conclusion, event.outcome
    row.exit_code, row.reason = event.exit_code, event.reason
    row.started_at = event.started_at or row.started_at
    row.finished_at = event.finished_at or event.occurred_at
    row.first_line, row.lines = event.first_line, event.lines
    row.groups = [
        {"title": group.title, "first_line": group.first_line, "lines": group.lines}
        for group in event.groups
    ]
    at.put(row)


def step(at: At, attempt: Attempt, event: e.StepStarted | e.StepFinished) -> Step:
    row = at.find(Step, attempt.job_id, attempt.attempt, event.number)
    if row is None:
        row = Step(job_id=attempt.job_id, attempt=attempt.attempt, number=event.number)
        row.run_id = attempt.run_id
    row.name = event.name
    return row


def job_finished(at: At, event: e.JobFinished) -> None:
    found = reported(at, event)
    if found is None:
        return
    job, attempt = found
    finished_at = event.finished_at or event.occurred_at
    attempt.started_at = attempt.started_at or event.started_at or None
    attempt.finished_at, attempt.conclusion = finished_at, event.conclusion
    attempt.reason, attempt.message = event.reason, event.message
    attempt.log_lines, attempt.log_sha256 = event.log_lines, event.log_sha256
    job.status, job.conclusion, job.reason = Status.COMPLETED, event.conclusion, event.reason
    job.message, job.outputs, job.summary = event.message, dict(event.outputs), event.summary
    job.started_at, job.finished_at = attempt.started_at, finished_at
    for ordinal, remark in enumerate(event.annotations):
        at.put(_annotation(attempt, ordinal, remark))
    if attempt.started_at is not None:
        run_is_running(at, event, attempt.started_at)


def _annotation(attempt: Attempt, ordinal: int, remark: e.Annotation) -> Annotation:
    return Annotation(
        job_id=attempt.job_id,
        attempt=attempt.attempt,
        ordinal=ordinal,
        run_id=attempt.run_id,
        level=remark.level,
        title=remark.title,
        message=remark.message,
        path=remark.path,
        line=remark.line,
        end_line=remark.end_line,
        col=remark.column,
        end_col=remark.end_column,
        step=remark.step,
    )


def slot_of(event: e.ArtifactUploaded) -> tuple[str, str]:
    """Return the key of an artifact's row: a run has one of a name, however long that is."""
    return event.run_id or "", hashlib.sha256(event.name.encode("utf-8", "replace")).hexdigest()


def artifact_uploaded(at: At, event: e.ArtifactUploaded) -> None:
    """Take the newest artifact of a name; the gateway let only a live attempt upload it."""
    run_id, slot = slot_of(event)
    row = at.find(Artifact, run_id, slot) or Artifact(run_id=run_id, slot=slot)
    row.artifact_id, row.repository = event.artifact_id or event.event_id, event.repository
    row.job_id, row.attempt = event.job_id or "", event.attempt or 0
    row.name, row.files, row.uri = event.name, event.files, event.uri
    row.size_bytes, row.sha256 = event.size_bytes, event.sha256
    row.created_at, row.expires_at = event.occurred_at, event.expires_at
    at.touch(row)
    run_of(at, event)


def assignment_declined(at: At, event: e.AssignmentDeclined) -> None:
    found = reported(at, event)
    if found is None:
        return
    job, attempt = found
    attempt.conclusion, attempt.reason = e.Conclusion.CANCELLED, event.reason
    attempt.finished_at = event.occurred_at
    job.status = Status.QUEUED


def log_archived(at: At, event: e.LogArchived) -> None:
    attempt = at.find(Attempt, event.job_id, event.attempt)
    if attempt is None or attempt.log_archived_offset is not None:
        return
    attempt.log_archived_offset = at.offset
    attempt.log_lines, attempt.log_sha256 = event.lines, event.sha256
    attempt.log_bytes, attempt.log_complete = event.size_bytes, event.complete
    attempt.log_detail = event.detail
    at.touch(attempt)
    for segment in event.segments:
        at.put(
            LogSegment(
                job_id=attempt.job_id,
                attempt=attempt.attempt,
                first_line=segment.first_line,
                lines=segment.lines,
                uri=segment.uri,
                sha256=segment.sha256,
                size_bytes=segment.size_bytes,
            )
        )
    at.rows.archived.append((attempt.job_id, attempt.attempt))
    run_of(at, event)
