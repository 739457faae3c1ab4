"""Runners and pools: what their events change."""

from __future__ import annotations

from projector.rows.working import At
from projector.tables import Pool, Runner
from schemas import events as e


def runner_joined(at: At, event: e.RunnerJoined) -> None:
    row = at.find(Runner, event.runner_id) or Runner(runner_id=event.runner_id or "")
    boot_id = event.boot_id or ""
    if boot_id < row.boot_id or (boot_id == row.boot_id and row.status != "online"):
        return  # a lower, lost or dismissed boot is ignored for ever
    if boot_id != row.boot_id:
        row.joined_at = event.occurred_at
    row.boot_id, row.pool, row.labels = boot_id, event.pool, list(event.labels)
    row.slots, row.lane, row.name = event.slots, event.lane, event.name
    row.isolation, row.version, row.hostname = event.isolation, event.version, event.hostname
    row.status, row.reason, row.gone_at = "online", "", None
    at.touch(row)


def runner_gone(at: At, event: e.RunnerLost | e.RunnerDismissed) -> None:
    row = at.find(Runner, event.runner_id)
    if row is None or row.boot_id != event.boot_id:
        return
    row.status = "lost" if isinstance(event, e.RunnerLost) else "dismissed"
    row.reason, row.gone_at = event.reason, event.occurred_at
    at.touch(row)


def pool_configured(at: At, event: e.PoolConfigured) -> None:
    row = at.find(Pool, event.pool) or Pool(name=event.pool)
    row.labels, row.actor = list(event.labels), event.actor
    row.configured_at = event.occurred_at
    at.touch(row)
