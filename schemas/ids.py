"""How ids of runs, jobs and legs are made from what they stand for; nothing here is random."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime


def run_id(occurred_at: int, delivery_id: str, workflow: str) -> str:
    """Return the id of the run that a delivery starts of a workflow file.

    It begins with the delivery's UTC day (`20260131-5f0c2a9b7d31`): read models are partitioned
    by it, and people can read it.
    """
    day = datetime.fromtimestamp(occurred_at / 1000, UTC).strftime("%Y%m%d")
    digest = hashlib.sha256(f"{delivery_id}\x1f{workflow}".encode()).hexdigest()
    return f"{day}-{digest[:12]}"


def job_id(run: str, key: str, leg: int | None = None) -> str:
    """Return the id of a job of a run; legs of a matrix count from 0."""
    return f"{run}.{key}" if leg is None else f"{run}.{key}.{leg}"


def run_of(job: str) -> str:
    """Return the run that a job id belongs to."""
    return job.split(".", 1)[0]
