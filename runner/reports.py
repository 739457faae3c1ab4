"""Makes the records that one attempt's runner appends: the only place that names their ids."""

from __future__ import annotations

from typing import Any

from infra.log import Append
from runner.identity import Identity
from runner.logs import Batch
from schemas import topics
from schemas.codec import EVENTS, LOGS, event_headers, event_id
from schemas.events import (
    Annotation,
    AssignmentDeclined,
    Event,
    JobFinished,
    JobStarted,
    LogGroup,
    StepFinished,
    StepStarted,
)
from schemas.lanes import Assignment
from schemas.late import dataclass
from schemas.streams import LogBatch

SOURCE = "tailrace/runner"

Common = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """A step that ended or did not run."""

    number: int
    name: str
    outcome: str
    conclusion: str
    exit_code: int | None = None
    started_at: int = 0
    finished_at: int = 0
    first_line: int = 0
    lines: int = 0
    reason: str = ""
    groups: tuple[LogGroup, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """How an attempt ended."""

    conclusion: str
    reason: str = ""
    message: str = ""
    outputs: dict[str, str]
    started_at: int
    finished_at: int
    log_lines: int
    log_sha256: str
    summary: str = ""
    annotations: tuple[Annotation, ...] = ()


class Reports:
    """The records of one attempt; every one carries its fencing token and its cause."""

    def __init__(self, assignment: Assignment, identity: Identity) -> None:
        """Report about `assignment` as this boot."""
        self._assignment = assignment
        self._identity = identity
        self.job_id = assignment.job_id or ""
        self.attempt = assignment.attempt or 0
        self._token = (self.job_id, self.attempt, identity.runner_id, identity.boot_id)
        self._started_id = event_id("JobStarted", *self._token)
        self._seq = 0

    def started(self, now_ms: int, *, isolation: str, hostname: str) -> Append:
        """Return the acceptance."""
        common = self._common("JobStarted", now_ms, cause=self._assignment.order_id)
        return self._append(
            JobStarted(
                **common,
                isolation=isolation,
                hostname=hostname,
                runner_name=self._identity.runner_id,
            )
        )

    def declined(self, now_ms: int, *, reason: str, order_id: str) -> Append:
        """Return that the assignment was given back; `order_id` asked for it."""
        common = self._common("AssignmentDeclined", now_ms, cause=order_id)
        return self._append(AssignmentDeclined(**common, reason=reason))

    def step_started(self, now_ms: int, *, number: int, name: str) -> Append:
        """Return that a step's process is being started."""
        common = self._common("StepStarted", now_ms, number)
        return self._append(StepStarted(**common, number=number, name=name, started_at=now_ms))

    def step_finished(self, now_ms: int, step: StepReport) -> Append:
        """Return how a step ended."""
        common = self._common("StepFinished", now_ms, step.number)
        return self._append(
            StepFinished(
                **common,
                number=step.number,
                name=step.name,
                outcome=step.outcome,
                conclusion=step.conclusion,
                exit_code=step.exit_code,
                started_at=step.started_at,
                finished_at=step.finished_at,
                first_line=step.first_line,
                lines=step.lines,
                reason=step.reason,
                groups=step.groups,
            )
        )

    def finished(self, now_ms: int, job: JobReport) -> Append:
        """Return how the attempt ended."""
        return self._append(
            JobFinished(
                **self._common("JobFinished", now_ms),
                conclusion=job.conclusion,
                reason=job.reason,
                message=job.message,
                outputs=job.outputs,
                started_at=job.started_at,
                finished_at=job.finished_at,
                log_lines=job.log_lines,
                log_sha256=job.log_sha256,
                summary=job.summary,
                annotations=job.annotations,
            )
        )

    def log_batch(
        self, now_ms: int, batch: Batch, *, last: bool = False, total: tuple[int, str] = (0, "")
    ) -> Append:
        """Return the next record of the attempt's log; `total` is (lines, sha256) of all of it."""
        seq, self._seq = self._seq, self._seq + 1
        record = LogBatch(
            job_id=self.job_id,
            attempt=self.attempt,
            runner_id=self._identity.runner_id,
            boot_id=self._identity.boot_id,
            run_id=self._assignment.run_id,
            repository=self._assignment.repository,
            seq=seq,
            occurred_at=now_ms,
            delivery_id=self._assignment.delivery_id,
            caused_by=self._started_id,
            first_line=batch.first_line,
            lines=batch.lines,
            size_bytes=batch.size_bytes,
            block=batch.block,
            last=last,
            total_lines=total[0],
            total_sha256=total[1],
        )
        return Append(
            topics.LOGS,
            topics.log_partition(self.job_id, self.attempt),
            topics.log_key(self.job_id, self.attempt).encode(),
            LOGS.encode(record),
        )

    def _common(self, kind: str, now_ms: int, *parts: object, cause: str | None = None) -> Common:
        return {
            "event_id": event_id(kind, *self._token, *parts),
            "occurred_at": now_ms,
            "repository": self._assignment.repository,
            "run_id": self._assignment.run_id,
            "caused_by": cause or self._started_id,
            "delivery_id": self._assignment.delivery_id,
            "job_id": self.job_id,
            "attempt": self.attempt,
            "runner_id": self._identity.runner_id,
            "boot_id": self._identity.boot_id,
        }

    def _append(self, event: Event) -> Append:
        return Append(
            topics.EVENTS,
            self._assignment.events_partition,
            event.repository.encode(),
            EVENTS.encode(event),
            event_headers(event, source=SOURCE, occurred_at=event.occurred_at),
        )
