"""Builds realistic histories: what ingest, planner, scheduler and runners would append, in order.

Time is counted by the builder, so that the same calls give the same events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import zstandard

from infra.log import Append
from schemas import codec, ids, loglines, streams, topics
from schemas import events as facts

START_MS = 1_763_900_000_000
REPOSITORY = "acme/widgets"
RUNNER = "runner-a"
BOOT = "019aae00-0000-7000-8000-000000000001"


def to_append(event: facts.Event, *, topic: str = topics.EVENTS, partition: int = 0) -> Append:
    """Return the record that a producer writes for an event."""
    key = event.repository or event.runner_id or ""
    return Append(
        topic=topic,
        partition=partition,
        key=key.encode(),
        value=codec.EVENTS.encode(event),
        headers=codec.event_headers(event, source="tailrace/test", occurred_at=event.occurred_at),
    )


@dataclass(slots=True)
class History:
    """Events as they are appended; each method stands for one fact and returns what it made."""

    repository: str = REPOSITORY
    now_ms: int = START_MS
    step_ms: int = 7
    events: list[facts.Event] = field(default_factory=list)
    cause: str | None = None
    runner_id: str = RUNNER
    boot_id: str = BOOT
    runs: int = 0
    delivery_id: str | None = None
    run_id: str | None = None

    def add(self, kind: type[facts.Event], *unique: object, **own: object) -> facts.Event:
        """Append one event with the common columns of where the history stands."""
        self.now_ms += self.step_ms
        event_id = codec.event_id(kind.__name__, *unique, len(self.events))
        columns: dict[str, Any] = {
            "event_id": event_id,
            "occurred_at": self.now_ms,
            "repository": self.repository,
            "caused_by": self.cause,
            "delivery_id": self.delivery_id,
            "run_id": self.run_id,
        }
        event = kind(**{**columns, **own})
        self.events.append(event)
        self.cause = event_id
        return event

    # ------------------------------------------------------------------- set-up

    def configured(self) -> History:
        """Register the repository, a pool and a runner."""
        self.add(
            facts.RepositoryConfigured,
            self.repository,
            provider="git",
            clone_url=f"file:///srv/git/{self.repository}.git",
            caused_by=None,
        )
        self.add(facts.PoolConfigured, "default", pool="default", labels=("linux", "x64"))
        self.joined()
        self.add(
            facts.WorkflowsIndexed,
            self.repository,
            sha="c" * 40,
            ref="refs/heads/main",
            workflows=(
                facts.IndexedWorkflow(
                    path=".github/workflows/ci.yml",
                    name="CI",
                    triggers_json='{"push":{"branches":["main"]}}',
                ),
            ),
        )
        return self

    def joined(self, boot_id: str | None = None) -> facts.Event:
        """Let the runner join (again, with a higher boot)."""
        self.boot_id = boot_id or self.boot_id
        return self.add(
            facts.RunnerJoined,
            self.runner_id,
            repository="",
            runner_id=self.runner_id,
            boot_id=self.boot_id,
            pool="default",
            labels=("linux", "x64"),
            slots=4,
            lane=topics.lane_of(self.runner_id),
            name=self.runner_id,
            hostname="build-1",
            version="0.1.0",
            isolation="user",
            run_id=None,
            delivery_id=None,
        )

    # ------------------------------------------------------------------- a run

    def pushed(self, message: str = "Tighten the lid", *, actor: str = "ada") -> str:
        """Receive and plan a push; returns the delivery id."""
        self.runs += 1
        self.delivery_id = f"git:{self.repository}:{self.runs}"
        self.run_id, self.cause = None, None
        sha = f"{self.runs:040x}"
        self.add(
            facts.DeliveryReceived,
            self.delivery_id,
            source="webhook",
            provider="git",
            event="push",
            ref="refs/heads/main",
            sha=sha,
            actor=actor,
            message=message,
            payload_json='{"ref":"refs/heads/main"}',
        )
        self.add(
            facts.DeliveryPlanned,
            self.delivery_id,
            workflows=(
                facts.WorkflowOutcome(
                    path=".github/workflows/ci.yml", outcome="planned", name="CI", plan_json="{}"
                ),
            ),
        )
        return self.delivery_id

    def planned(
        self,
        jobs: Sequence[tuple[str, tuple[str, ...]]] = (("build", ()), ("test", ("build",))),
        *,
        approval_required: bool = False,
    ) -> str:
        """Plan a run of the last delivery with (key, needs) jobs; returns the run id."""
        assert self.delivery_id is not None
        self.run_id = ids.run_id(self.now_ms, self.delivery_id, ".github/workflows/ci.yml")
        run = self.run_id
        received = next(
            event for event in reversed(self.events) if isinstance(event, facts.DeliveryReceived)
        )
        self.add(
            facts.RunPlanned,
            run,
            workflow=".github/workflows/ci.yml",
            workflow_name="CI",
            run_name=received.message,
            run_number=self.runs,
            event="push",
            sha=received.sha,
            ref=received.ref,
            actor=received.actor,
            message=received.message,
            approval_required=approval_required,
            jobs=tuple(
                facts.PlannedJob(job_id=ids.job_id(run, key), key=key, name=key.title(), needs=n)
                for key, n in jobs
            ),
        )
        return run

    def job(self, key: str, leg: int | None = None) -> str:
        """Return the id of a job of the current run."""
        assert self.run_id is not None
        return ids.job_id(self.run_id, key, leg)

    def scheduled(self, job: str, attempt: int = 1, reason: str = "first") -> facts.Event:
        """Queue an attempt."""
        name = job.split(".", 1)[1].title()
        return self.add(
            facts.JobScheduled, job, attempt, job_id=job, attempt=attempt, name=name,
            pool="default", labels=("linux",), reason=reason,
        )  # fmt: skip

    def assigned(self, job: str, attempt: int = 1) -> facts.Event:
        """Assign an attempt to the current runner."""
        return self.add(
            facts.JobAssigned, job, attempt, **self._token(job, attempt), pool="default", lane=3
        )

    def started(self, job: str, attempt: int = 1) -> facts.Event:
        """Report that the runner accepted it."""
        return self.add(
            facts.JobStarted, job, attempt, **self._token(job, attempt), isolation="user",
            hostname="build-1", runner_name=self.runner_id,
        )  # fmt: skip

    def stepped(
        self,
        job: str,
        attempt: int = 1,
        *,
        number: int = 1,
        name: str = "Run make",
        conclusion: str = "success",
    ) -> None:
        """Report a step from its start to its end."""
        token = self._token(job, attempt)
        self.add(facts.StepStarted, job, attempt, number, **token, number=number, name=name)
        self.add(
            facts.StepFinished, job, attempt, number, **token, number=number, name=name,
            outcome=conclusion, conclusion=conclusion,
            exit_code=0 if conclusion == "success" else 2, first_line=(number - 1) * 3, lines=3,
        )  # fmt: skip

    def finished(
        self, job: str, attempt: int = 1, *, conclusion: str = "success", **own: object
    ) -> facts.Event:
        """Report the attempt's end."""
        reason = "" if conclusion == "success" else "user.exit_code"
        fields = {"reason": reason, "log_lines": 6, "log_sha256": "a" * 64, **own}
        return self.add(
            facts.JobFinished, job, attempt, **self._token(job, attempt), conclusion=conclusion,
            **fields,
        )  # fmt: skip

    def whole_job(self, job: str, attempt: int = 1, *, conclusion: str = "success") -> None:
        """Take an attempt from its queue to its end, with two steps."""
        self.scheduled(job, attempt)
        self.assigned(job, attempt)
        self.started(job, attempt)
        self.stepped(job, attempt, number=1, name="Set up job")
        self.stepped(job, attempt, number=2, name="Run make", conclusion=conclusion)
        self.finished(job, attempt, conclusion=conclusion)

    def run_finished(self, conclusion: str = "success") -> facts.Event:
        """End the run."""
        return self.add(facts.RunFinished, self.run_id, conclusion=conclusion)

    def whole_run(self, *, conclusion: str = "success", message: str = "Tighten the lid") -> str:
        """Push, plan and run two jobs, the second one ending with `conclusion`."""
        self.pushed(message)
        run = self.planned()
        self.add(
            facts.JobBlocked, self.job("test"), job_id=self.job("test"), reason="needs",
            detail="waits for build", blockers=(self.job("build"),),
        )  # fmt: skip
        self.whole_job(self.job("build"))
        self.whole_job(self.job("test"), conclusion=conclusion)
        self.run_finished(conclusion)
        return run

    def _token(self, job: str, attempt: int) -> dict[str, object]:
        return {
            "job_id": job,
            "attempt": attempt,
            "runner_id": self.runner_id,
            "boot_id": self.boot_id,
        }


def repeated(event: facts.Event) -> facts.Event:
    """Return the same fact as a redelivery gives it."""
    return replace(event)


# --------------------------------------------------------------------------- logs


@dataclass(slots=True)
class LogStream:
    """The batches of one attempt's log as its runner ships them."""

    job_id: str
    attempt: int = 1
    runner_id: str = RUNNER
    boot_id: str = BOOT
    repository: str = REPOSITORY
    now_ms: int = START_MS
    seq: int = 0
    digest: loglines.LogDigest = field(default_factory=loglines.LogDigest)

    def batch(
        self,
        texts: Iterable[str],
        *,
        stream: str = loglines.STDOUT,
        step: int = 1,
        last: bool = False,
    ) -> streams.LogBatch:
        """Return the next batch of these lines."""
        lines = list(texts)
        payload = "".join(f"{text}\n" for text in lines).encode()
        first_line = self.digest.lines
        self.digest.add(len(lines), payload)
        run = loglines.Run(self.now_ms, stream, step, len(lines), payload)
        raw = loglines.encode_run(run) if lines else b""
        batch = streams.LogBatch(
            job_id=self.job_id,
            attempt=self.attempt,
            runner_id=self.runner_id,
            boot_id=self.boot_id,
            run_id=ids.run_of(self.job_id),
            repository=self.repository,
            seq=self.seq,
            occurred_at=self.now_ms,
            first_line=first_line,
            lines=len(lines),
            size_bytes=len(raw),
            block=zstandard.ZstdCompressor().compress(raw),
            last=last,
            total_lines=self.digest.lines if last else 0,
            total_sha256=self.digest.hexdigest() if last else "",
        )
        self.seq += 1
        self.now_ms += 11
        return batch


def log_append(batch: streams.LogBatch, *, topic: str = topics.LOGS) -> Append:
    """Return the record that a runner writes for a batch."""
    key = topics.log_key(batch.job_id, batch.attempt)
    return Append(
        topic=topic,
        partition=topics.log_partition(batch.job_id, batch.attempt),
        key=key.encode(),
        value=codec.LOGS.encode(batch),
    )
