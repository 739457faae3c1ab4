"""What the default branch's workflows wait for: the rows of cron entries and workflow_run triggers.

Called by `evolve` alone. `now` is always the `occurred_at` of the event at hand, so that a replay
arms the same instants.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from scheduler.core import deadlines
from scheduler.core.state import Armed, CronEntry, Known, Listener, Run, State
from schemas import events as e
from schemas.workflow.cron import next_after
from schemas.workflow.errors import LanguageError

REQUESTED, IN_PROGRESS, COMPLETED = "requested", "in_progress", "completed"
WORKFLOW_RUN = "workflow_run"
#: Of a repository; more are not armed: each of them is a delivery a minute at worst.
CRONS_MAX = 1_000
#: As on GitHub: a run that three workflow_run deliveries led to tells nobody.
CHAIN_MAX = 3


def indexed(state: State, event: e.WorkflowsIndexed) -> None:
    """Take over an index: an entry that stays keeps its instant, one that went is disarmed."""
    before = state.known.get(event.repository)
    old = {(c.workflow, c.cron, c.timezone): c for c in (before.crons if before else ())}
    crons: dict[tuple[str, str, str | None], CronEntry] = {}
    listeners: list[Listener] = []
    for workflow in event.workflows:
        triggers = {} if workflow.problems else _object(workflow.triggers_json)
        listeners += _listeners(triggers)
        for cron, timezone in _schedules(triggers):
            key = (workflow.path, cron, timezone)
            if key not in crons and len(crons) < CRONS_MAX:
                crons[key] = old.get(key) or CronEntry(
                    workflow.path, cron, timezone, _next(cron, timezone, event.occurred_at)
                )
    for key, entry in old.items():
        if key not in crons:
            state.disarm(_deadline_id(event.repository, entry))
    if not crons and not listeners:
        state.known.drop(event.repository)
        return
    known = Known(
        repository=event.repository,
        index_id=event.event_id,
        sha=event.sha,
        ref=event.ref,
        crons=tuple(crons.values()),
        listeners=tuple(listeners),
    )
    state.known.put(event.repository, known)
    for entry in known.crons:
        _arm(state, known, entry)


def ticked(state: State, armed: Armed, now_ms: int) -> None:
    """Arm the tick after one that has passed; those between it and now are not made up for."""
    found = entry_of(state, armed)
    if found is None:
        return
    known, entry = found
    entry.due = _next(entry.cron, entry.timezone, max(now_ms, armed.at_ms))
    state.known.put(known.repository, known)
    _arm(state, known, entry)


def forgotten(state: State, repository: str) -> None:
    """Wait for nothing of a repository any more."""
    known = state.known.get(repository)
    if known is None:
        return
    for entry in known.crons:
        state.disarm(_deadline_id(repository, entry))
    state.known.drop(repository)


def entry_of(state: State, armed: Armed) -> tuple[Known, CronEntry] | None:
    """Return the entry that a deadline was armed for."""
    known = state.known.get(armed.subject)
    for entry in known.crons if known is not None else ():
        tick = (entry.workflow, entry.cron, entry.timezone, armed.at_ms)
        if known is not None and deadlines.cron(armed.subject, *tick) == armed.deadline_id:
            return known, entry
    return None


def wanted(state: State, run: Run, action: str) -> Known | None:
    """Return what is known of the repository if a workflow waits for this of the run."""
    known = state.known.get(run.repository)
    if known is None or not known.listeners:
        return None
    plan = state.plans[run.run_id]
    if plan.chain >= CHAIN_MAX:
        return None
    for listener in known.listeners:
        of_type = not listener.types or action in listener.types
        if of_type and (not listener.workflows or plan.workflow_name in listener.workflows):
            return known
    return None


def _arm(state: State, known: Known, entry: CronEntry) -> None:
    if not entry.due:
        return
    state.arm(
        Armed(
            deadline_id=_deadline_id(known.repository, entry),
            delay_ms=0,
            caused_by=known.index_id,
            subject=known.repository,
            repository=known.repository,
            at_ms=entry.due,
        )
    )


def _deadline_id(repository: str, entry: CronEntry) -> str:
    return deadlines.cron(repository, entry.workflow, entry.cron, entry.timezone, entry.due)


def _next(cron: str, timezone: str | None, now_ms: int) -> int:
    try:
        return next_after(cron, now_ms, timezone) or 0
    except LanguageError:
        return 0  # a time zone that this machine does not know


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _objects(triggers: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = triggers.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _schedules(triggers: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    for schedule in _objects(triggers, "schedules"):
        yield str(schedule.get("cron", "")), schedule.get("timezone")


def _listeners(triggers: dict[str, Any]) -> Iterator[Listener]:
    for event in _objects(triggers, "events"):
        if event.get("event") == WORKFLOW_RUN:
            yield Listener(
                types=tuple(event.get("types") or ()), workflows=tuple(event.get("workflows") or ())
            )
