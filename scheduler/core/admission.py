"""Which inputs count: duplicates, late facts and reports of attempts that are not live.

Asked before `evolve`; the table of what may follow what is `schemas.lifecycle`.
"""

from __future__ import annotations

from scheduler.core.index import Index
from scheduler.core.state import JobPhase, State
from schemas import events as e
from schemas.late import dataclass
from schemas.lifecycle import Phase, after, token_matches

_SYNCHRONIZE = "synchronize"

#: Kinds that say nothing to the core; the shell need not even decode them.
IRRELEVANT = frozenset(
    kind.__name__
    for kind in (
        e.StepStarted, e.StepFinished, e.LogArchived, e.SecretsReleased, e.ArtifactUploaded,
    )
)  # fmt: skip

_PHASES = {
    JobPhase.QUEUED: Phase.QUEUED,
    JobPhase.ASSIGNED: Phase.ASSIGNED,
    JobPhase.STARTED: Phase.STARTED,
    JobPhase.LOST: Phase.LOST,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The input changes nothing; `reason` is a code, silent refusals leave no trace."""

    reason: str
    silent: bool = False


_SILENT = Refusal("nothing to do", silent=True)


def refusal(state: State, index: Index, event: e.Event) -> Refusal | None:
    """Say why an input does not count, or None when it does."""
    match event:
        case e.JobStarted() | e.JobFinished() | e.AssignmentDeclined():
            return _report(state, event)
        case e.DeliveryReceived():
            return _delivery(state, index, event)
        case e.DeliveryPlanned():
            delivery = state.deliveries.get(event.delivery_id)
            return None if delivery is not None and not delivery.answered else _SILENT
        case e.DeadlinePassed():
            return None if event.deadline_id in state.armed else _SILENT
        case e.CancelRequested() | e.RunApproved():
            return None if (event.run_id or "") in state.runs else _SILENT
        case e.WorkflowsIndexed():
            repository = state.repositories.get(event.repository)
            return None if repository is not None and not repository.removed else _SILENT
        case e.RunnerJoined() | e.RunnerLost():
            return _boot(state, event)
        case _:
            return None


def _report(
    state: State, event: e.JobStarted | e.JobFinished | e.AssignmentDeclined
) -> Refusal | None:
    job = state.jobs.get(event.job_id)
    if job is None:
        return Refusal("the run is finished or was never planned")
    live = (job.attempt, job.runner_id, job.boot_id)
    if not token_matches(live, (event.attempt, event.runner_id, event.boot_id)):
        return Refusal("another attempt is the live one")
    phase = _PHASES.get(job.phase, Phase.ENDED)
    if after(phase, type(event).__name__) is None:
        return Refusal(f"the attempt is {phase.value}")
    return None


def _delivery(state: State, index: Index, event: e.DeliveryReceived) -> Refusal | None:
    delivery_id = event.delivery_id or event.event_id
    if delivery_id in index.seen[event.repository]:
        return Refusal("duplicate_delivery")
    head = state.heads.get(f"{event.repository}#{event.number}") if event.number else None
    repeats = event.event.startswith("pull_request") and event.action == _SYNCHRONIZE
    if repeats and head is not None and head.value == event.sha:
        return Refusal("duplicate_head")
    return None


def _boot(state: State, event: e.RunnerJoined | e.RunnerLost) -> Refusal | None:
    known = state.runners.get(event.runner_id)
    if isinstance(event, e.RunnerLost):
        same = known is not None and known.live and known.boot_id == event.boot_id
        return None if same else _SILENT
    if known is None:
        return None
    boot_id = event.boot_id or ""
    if boot_id < known.boot_id or (boot_id == known.boot_id and not known.live):
        return Refusal("dismissed boot")
    return None
