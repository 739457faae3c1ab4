"""A cell driven by hand: events in, decisions and orders out, as histories read."""

from __future__ import annotations

import json
from collections.abc import Mapping

from scheduler.core.cell import Cell
from scheduler.core.outputs import Order, Output
from schemas import events as e
from schemas.codec import event_id
from schemas.events import Event
from schemas.lanes import Assignment, LaneRecord
from schemas.workflow.plan_json import plan_to_json
from tests.support.workflows import PATH, compiled

REPOSITORY = "demo/hello"


class CellDriver:
    """Feeds a `Cell` and keeps everything that came out of it."""

    def __init__(self, cell: Cell | None = None) -> None:
        """Start with an empty cell, or drive a given one."""
        self.cell = cell or Cell()
        self.offset = 0
        self.inputs: list[tuple[int, Event]] = []
        self.outputs: list[Output] = []

    def feed(self, event: Event) -> list[Output]:
        """Hand over one input; returns what followed."""
        self.inputs.append((self.offset, event))
        made = self.cell.handle(event, self.offset)
        self.offset += 1
        self.outputs += made
        return made

    @property
    def decisions(self) -> list[Event]:
        """Everything decided so far."""
        return [output for output in self.outputs if isinstance(output, Event)]

    @property
    def orders(self) -> list[LaneRecord]:
        """Every order given so far."""
        return [output.record for output in self.outputs if isinstance(output, Order)]

    def of(self, kind: type[Event]) -> list[Event]:
        """Return the decisions of one kind."""
        return [event for event in self.decisions if isinstance(event, kind)]

    # ----------------------------------------------------------------- inputs

    def configure(self, **settings: object) -> None:
        """Add the repository."""
        self.feed(
            e.RepositoryConfigured(
                event_id=event_id("RepositoryConfigured", REPOSITORY, self.offset),
                repository=REPOSITORY,
                provider="git",
                clone_url="/srv/hello.git",
                **settings,  # type: ignore[arg-type]
            )
        )

    def join(
        self,
        runner_id: str = "r1",
        *,
        boot: str = "b1",
        slots: int = 4,
        labels: tuple[str, ...] = ("ubuntu-latest", "self-hosted", "linux"),
        pool: str = "default",
        capabilities: tuple[str, ...] = (),
    ) -> list[Output]:
        """A boot of a runner announces itself."""
        return self.feed(
            e.RunnerJoined(
                event_id=event_id("RunnerJoined", runner_id, boot, self.offset),
                runner_id=runner_id,
                boot_id=boot,
                pool=pool,
                labels=labels,
                slots=slots,
                lane=0,
                capabilities=capabilities,
            )
        )

    def receive(self, delivery_id: str = "d1", **facts: object) -> list[Output]:
        """A delivery comes in."""
        values: dict[str, object] = {
            "source": "webhook", "provider": "git", "event": "push", "ref": "refs/heads/main",
            "sha": "a" * 40, "actor": "ada", "message": "Say hello", "payload_json": "{}",
            **facts,
        }  # fmt: skip
        return self.feed(
            e.DeliveryReceived(
                event_id=event_id("DeliveryReceived", delivery_id, self.offset),
                occurred_at=1_750_000_000_000,
                repository=REPOSITORY,
                delivery_id=delivery_id,
                **values,  # type: ignore[arg-type]
            )
        )

    def plan(
        self,
        text: str,
        delivery_id: str = "d1",
        path: str = PATH,
        files: Mapping[str, str] = {},
        event: str = "push",
    ) -> list[Output]:
        """The planner answers with one workflow."""
        plan = compiled(text, path, files)
        outcome = e.WorkflowOutcome(
            path=path,
            outcome=e.Outcome.PLANNED,
            name=plan.name,
            plan_json=plan_to_json(plan),
            event=event,
            sha="a" * 40,
            ref="refs/heads/main",
        )
        return self.answer((outcome,), delivery_id)

    def answer(
        self, workflows: tuple[e.WorkflowOutcome, ...], delivery_id: str = "d1", error: str = ""
    ) -> list[Output]:
        """The planner answers."""
        return self.feed(
            e.DeliveryPlanned(
                event_id=event_id("DeliveryPlanned", delivery_id),
                repository=REPOSITORY,
                delivery_id=delivery_id,
                caused_by=event_id("DeliveryReceived", delivery_id, 0),
                workflows=workflows,
                github_json='{"repository":"demo/hello"}',
                error=error,
            )
        )

    def push(self, text: str, delivery_id: str = "d1", files: Mapping[str, str] = {}) -> str:
        """A push comes in and is planned; returns the run's id."""
        self.receive(delivery_id)
        self.plan(text, delivery_id, files=files)
        planned = self.of(e.RunPlanned)[-1]
        return planned.run_id or ""

    def live(self) -> dict[str, Assignment]:
        """Return the assignments by job key that no report has ended, newest attempt each."""
        jobs = self.cell.state.jobs
        found: dict[str, Assignment] = {}
        for order in self.orders:
            job = jobs.get(order.job_id)
            if not isinstance(order, Assignment) or job is None or job.attempt != order.attempt:
                continue
            if job.runner_id == order.runner_id and job.phase in ("assigned", "started"):
                found[(order.job_id or "").split(".", 1)[1]] = order
        return found

    def report(self, kind: type[Event], order: Assignment, **fields: object) -> list[Output]:
        """The runner of an assignment reports."""
        return self.feed(
            kind(
                event_id=event_id(kind.__name__, order.job_id, order.attempt, order.boot_id),
                repository=order.repository,
                run_id=order.run_id,
                delivery_id=order.delivery_id,
                job_id=order.job_id,
                attempt=order.attempt,
                runner_id=order.runner_id,
                boot_id=order.boot_id,
                caused_by=order.order_id,
                **fields,  # type: ignore[arg-type]
            )
        )

    def start(self, key: str) -> list[Output]:
        """The runner accepts the job."""
        return self.report(e.JobStarted, self.live()[key])

    def finish(
        self, key: str, conclusion: str = "success", reason: str = "", **outputs: str
    ) -> list[Output]:
        """The runner ends the job."""
        order = self.live()[key]
        return self.report(
            e.JobFinished, order, conclusion=conclusion, reason=reason, outputs=dict(outputs)
        )

    def cancel(self, run_id: str, job_id: str | None = None) -> list[Output]:
        """Someone asks to cancel."""
        return self.feed(
            e.CancelRequested(
                event_id=event_id("CancelRequested", run_id, job_id, self.offset),
                repository=REPOSITORY,
                run_id=run_id,
                job_id=job_id,
                actor="ada",
            )
        )

    def pass_deadline(self, deadline_id: str, at_ms: int = 0) -> list[Output]:
        """An armed deadline's time has come."""
        return self.feed(
            e.DeadlinePassed(
                event_id=event_id("DeadlinePassed", deadline_id),
                deadline_id=deadline_id,
                repository=REPOSITORY,
                occurred_at=at_ms,
            )
        )

    def index(self, files: Mapping[str, str], at_ms: int, sha: str = "c" * 40) -> list[Output]:
        """The planner has read the default branch's workflows."""
        return self.feed(indexed(REPOSITORY, files, at_ms, sha))

    def ticks(self) -> list[str]:
        """Return the cron deadlines that are armed."""
        return sorted(d for d in self.cell.state.armed.rows if d.startswith("cron:"))

    def lose(self, runner_id: str, boot: str = "b1") -> list[Output]:
        """The fleet calls a boot lost."""
        return self.feed(
            e.RunnerLost(
                event_id=event_id("RunnerLost", runner_id, boot),
                runner_id=runner_id,
                boot_id=boot,
                reason="silent",
            )
        )


def indexed(
    repository: str, files: Mapping[str, str], at_ms: int, sha: str = "c" * 40
) -> e.WorkflowsIndexed:
    """Return the index of workflow texts by path."""
    plans = {path: compiled(text, path) for path, text in files.items()}
    return e.WorkflowsIndexed(
        event_id=event_id("WorkflowsIndexed", repository, sha, at_ms),
        occurred_at=at_ms,
        repository=repository,
        sha=sha,
        ref="refs/heads/main",
        workflows=tuple(
            e.IndexedWorkflow(
                path=path,
                name=plan.name,
                triggers_json=json.dumps(json.loads(plan_to_json(plan)).get("on", {})),
            )
            for path, plan in plans.items()
        ),
    )
