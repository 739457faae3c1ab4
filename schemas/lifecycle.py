"""What may follow what in the life of an attempt, and which report counts.

The scheduler refuses by this table and the projector draws by it, so both call the same report
late. An attempt is a try at a job on one runner; (attempt, runner_id, boot_id) is its token.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where an attempt stands."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    STARTED = "started"
    LOST = "lost"  # AttemptLost, inside its grace: a JobFinished still counts
    ENDED = "ended"


#: phase -> kind of event -> the phase after it. What is not here is refused.
TRANSITIONS: dict[Phase, dict[str, Phase]] = {
    Phase.QUEUED: {
        "JobAssigned": Phase.ASSIGNED,
        "JobCancelled": Phase.ENDED,
        "JobFailed": Phase.ENDED,
    },
    Phase.ASSIGNED: {
        "JobStarted": Phase.STARTED,
        "JobFinished": Phase.ENDED,  # its JobStarted was spooled behind an outage and is not lost
        "AssignmentDeclined": Phase.ENDED,  # the next try is an attempt of its own
        "AttemptLost": Phase.LOST,
        "StepStarted": Phase.ASSIGNED,
        "StepFinished": Phase.ASSIGNED,
    },
    Phase.STARTED: {
        "StepStarted": Phase.STARTED,
        "StepFinished": Phase.STARTED,
        "JobFinished": Phase.ENDED,
        "AttemptLost": Phase.LOST,
    },
    Phase.LOST: {
        "JobFinished": Phase.ENDED,
        "JobScheduled": Phase.ENDED,
        "JobCancelled": Phase.ENDED,
        "JobFailed": Phase.ENDED,
    },
    Phase.ENDED: {},
}

#: The kinds that a runner reports; every one carries the fencing token.
REPORTS = frozenset({"JobStarted", "StepStarted", "StepFinished", "JobFinished",
                     "AssignmentDeclined"})  # fmt: skip


def after(phase: Phase, kind: str) -> Phase | None:
    """Return the phase that `kind` leads to, or None when it is refused."""
    return TRANSITIONS[phase].get(kind)


def token_matches(
    live: tuple[int, str | None, str | None], report: tuple[int | None, str | None, str | None]
) -> bool:
    """Say whether a report's (attempt, runner_id, boot_id) is the live attempt's."""
    return live == report
