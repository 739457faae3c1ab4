"""Names of deadlines: kind, subject and attempt or instant; only a cron tick can be armed again."""

from __future__ import annotations

import hashlib

PLAN = "plan"
ACCEPT = "accept"
WITHDRAW = "withdraw"
GRACE = "grace"
CRON = "cron"

_TEXT_BYTES_MAX = 600


def plan(delivery_id: str) -> str:
    """The planner's answer to a delivery."""
    return f"{PLAN}:{delivery_id}"


def accept(job_id: str, attempt: int) -> str:
    """The runner's JobStarted after an assignment."""
    return f"{ACCEPT}:{job_id}@{attempt}"


def withdraw(job_id: str, attempt: int) -> str:
    """Any report after a withdrawal was ordered."""
    return f"{WITHDRAW}:{job_id}@{attempt}"


def grace(job_id: str, attempt: int) -> str:
    """A JobFinished of an attempt whose runner is gone."""
    return f"{GRACE}:{job_id}@{attempt}"


def schedule(repository: str, workflow: str, expression: str, timezone: str | None) -> str:
    """What all ticks of a cron entry begin with. What is too long for an id is hashed."""
    text = f"{workflow}:{expression}@{timezone}" if timezone else f"{workflow}:{expression}"
    if len(text.encode()) > _TEXT_BYTES_MAX:
        text = hashlib.sha256(text.encode()).hexdigest()
    return f"{CRON}:{repository}:{text}"


def cron(schedule_id: str, due: int) -> str:
    """A schedule's tick; the id of its delivery too."""
    return f"{schedule_id}:{due}"


def kind(deadline_id: str) -> str:
    """Return what a deadline is for."""
    return deadline_id.partition(":")[0]
