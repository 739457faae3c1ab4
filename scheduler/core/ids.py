"""Identity and cause of decisions: every id derives from what the decision is about."""

from __future__ import annotations

from typing import Any, TypedDict

from scheduler.core.outputs import Cause
from scheduler.core.state import Job, Run
from schemas.codec import event_id


class Common(TypedDict):
    """The columns that a decision about a run shares with it."""

    event_id: str
    repository: str
    run_id: str | None
    caused_by: str | None
    delivery_id: str | None


def about_run(kind: type, run: Run, cause: Cause, *unique: Any) -> Common:
    """Return a run decision's columns."""
    same = cause.run_id == run.run_id or cause.delivery_id == run.delivery_id
    return Common(
        event_id=event_id(kind.__name__, run.run_id, run.run_attempt, *unique),
        repository=run.repository,
        run_id=run.run_id,
        caused_by=cause.event_id if same else run.planned_id,
        delivery_id=run.delivery_id,
    )


class JobCommon(Common):
    """The columns that a decision about a job shares with it."""

    job_id: str | None
    attempt: int | None


def about_job(kind: type, run: Run, job: Job, cause: Cause, *unique: Any) -> JobCommon:
    """Return a job decision's columns.

    The cause is the input when it belongs to the run. Otherwise (a runner joined, another run's
    job ended) it is the last thing that happened to the job, so that a run's chain of causes stays
    its own and ends at its delivery.
    """
    same = cause.run_id == run.run_id or cause.delivery_id == run.delivery_id
    return JobCommon(
        event_id=event_id(kind.__name__, job.job_id, job.attempt, *unique),
        repository=run.repository,
        run_id=run.run_id,
        caused_by=cause.event_id if same else job.last_event,
        delivery_id=run.delivery_id,
        job_id=job.job_id,
        attempt=job.attempt or None,
    )
