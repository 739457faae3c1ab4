"""One cell's core: an input in, decisions and orders out. The only entry to the rules."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.core import (
    deadlines,
    deliveries,
    dispatch,
    fleet_rules,
    known,
    orchestration,
    self_made,
)
from scheduler.core.admission import Refusal, refusal
from scheduler.core.evolve import evolve
from scheduler.core.index import Index
from scheduler.core.outputs import Cause, Output
from scheduler.core.state import Armed, State
from schemas import events as e
from schemas.codec import event_id
from schemas.events import Event


class Cell:
    """The state of a cell with the rules that act on it.

    `handle` is deterministic: the same inputs give the same outputs, whatever the clock says.
    """

    def __init__(self, number: int = 0, state: State | None = None) -> None:
        """Begin with nothing known, or with restored rows."""
        self.number = number
        self.state = state or State()
        self.index = Index.of(self.state)

    def handle(self, event: Event, offset: int) -> list[Output]:
        """Evolve by one input and return what is decided, in order.

        `offset` is the input's place in the cell. Every decision has been evolved already.
        """
        cause = Cause(
            event_id=event.event_id,
            offset=offset,
            occurred_at=event.occurred_at,
            run_id=event.run_id,
            delivery_id=event.delivery_id,
        )
        outputs: list[Output] = []
        for output in self._outputs(event, cause):
            if not isinstance(output, Event):
                outputs.append(output)
                continue
            told = self._told_of_end(output, cause)
            evolve(self.state, self.index, output)
            outputs.append(output)
            if isinstance(output, e.RunPlanned):
                told = self_made.told(self.state, output.run_id, known.REQUESTED, cause)
            if told is not None:
                evolve(self.state, self.index, told)
                outputs.append(told)
        return outputs

    def _told_of_end(self, output: Event, cause: Cause) -> e.DeliveryReceived | None:
        """Return what the end of a run tells other workflows: asked while its row is there."""
        if not isinstance(output, e.RunFinished):
            return None
        return self_made.told(
            self.state, output.run_id, known.COMPLETED, cause, str(output.conclusion)
        )

    def refold(self, event: Event) -> None:
        """Evolve by a recorded input as `handle` did, without deciding again."""
        if refusal(self.state, self.index, event) is None:
            evolve(self.state, self.index, event)

    def replay(self, decision: Event) -> None:
        """Evolve by a recorded decision."""
        evolve(self.state, self.index, decision)

    def _outputs(self, event: Event, cause: Cause) -> Iterator[Output]:
        refused = refusal(self.state, self.index, event)
        if refused is not None:
            yield from _refused(event, refused, cause)
            return
        armed = None
        if isinstance(event, e.DeadlinePassed):
            armed = self.state.armed[event.deadline_id]
        begins = isinstance(event, e.JobStarted) and not self._told_progress(event)
        evolve(self.state, self.index, event)
        if begins and self._told_progress(event):
            told = self_made.told(self.state, event.run_id, known.IN_PROGRESS, cause)
            if told is not None:
                yield told
        yield from self._decide(event, armed, cause)
        if self.index.touched_pools:
            yield from dispatch.dispatch(self.state, self.index, cause, self.number)

    def _decide(self, event: Event, armed: Armed | None, cause: Cause) -> Iterator[Output]:
        state, index = self.state, self.index
        match event:
            case e.DeliveryPlanned():
                yield from deliveries.release(state, index, event.repository, cause)
            case e.JobFinished():
                yield from orchestration.attempt_ended(state, index, event, cause)
            case e.AssignmentDeclined():
                job = state.jobs[event.job_id or ""]
                run = state.runs[job.run_id]
                yield from orchestration.try_again(
                    state, index, run, job, cause, reason=f"declined: {event.reason}"
                )
            case e.CancelRequested():
                run = state.runs[event.run_id or ""]
                yield from orchestration.cancel(state, index, run, cause)
            case e.RunApproved():
                yield from orchestration.begin(state, index, event.run_id or "", cause)
            case e.RunnerJoined():
                yield from fleet_rules.joined(state, event, cause)
            case e.RunnerLost():
                yield from fleet_rules.gone(
                    state, event.runner_id or "", event.boot_id or "", fleet_rules.LOST, cause
                )
            case e.DeadlinePassed() if armed is not None:
                yield from self._deadline(event, armed, cause)
            case _:
                return

    def _told_progress(self, event: Event) -> bool:
        run = self.state.runs.get(event.run_id)
        return run is not None and run.told_progress

    def _deadline(self, event: e.DeadlinePassed, armed: Armed, cause: Cause) -> Iterator[Output]:
        if deadlines.kind(event.deadline_id) == deadlines.PLAN:
            yield from deliveries.unanswered(self.state, self.index, armed.subject, cause)
        elif deadlines.kind(event.deadline_id) == deadlines.CRON:
            made = self_made.tick(self.state, self.index, event, armed, cause)
            if made is not None:
                yield made
        else:
            yield from fleet_rules.deadline(self.state, self.index, event, armed, cause)


def _refused(event: Event, refused: Refusal, cause: Cause) -> Iterator[Output]:
    if refused.silent:
        return
    if isinstance(event, e.DeliveryReceived):
        yield deliveries.duplicate(event, refused.reason, cause)
    elif isinstance(event, e.RunnerJoined):
        yield fleet_rules.dismissed_boot(event)
    else:
        yield e.StaleReport(
            event_id=event_id("StaleReport", event.event_id, cause.offset),
            repository=event.repository,
            run_id=event.run_id,
            caused_by=event.event_id,
            delivery_id=event.delivery_id,
            job_id=event.job_id,
            attempt=event.attempt,
            runner_id=event.runner_id,
            boot_id=event.boot_id,
            report_id=event.event_id,
            report_kind=type(event).__name__,
            reason=refused.reason,
        )
