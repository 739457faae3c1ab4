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
    old = before.crons if before is not None else ()
    crons: dict[str, CronEntry] = {}
    listeners: list[Listener] = []
    for workflow in event.workflows:
        triggers = {} if workflow.problems else _object(workflow.triggers_json)
        listeners += _listeners(triggers)
        for cron, timezone in _schedules(triggers):
            key = deadlines.schedule(event.repository, workflow.path, cron, timezone)
            if key not in crons and len(crons) < CRONS_MAX:
                crons[key] = _entry(state, key, workflow.path, cron, timezone, event.occurred_at)
    for key in old:
        if key not in crons:
            _forget(state, key)
    if not crons and not listeners:
        state.known.drop(event.repository)
        return
    known = Known(
        repository=event.repository,
        index_id=event.event_id,
        sha=event.sha,
        ref=event.ref,
        crons=tuple(crons),
        listeners=tuple(listeners),
    )
    state.known.put(event.repository, known)
    for key, entry in crons.items():
        if state.crons.get(key) is not entry:
            state.crons.put(key, entry)
        _arm(state, known, key, entry)


def ticked(state: State, armed: Armed, now_ms: int) -> None:
    """Arm the tick after one that has passed; those between it and now are not made up for."""
    found = entry_of(state, armed)
    if found is None:
        return
    known, entry = found
    entry.due = _next(entry.cron, entry.timezone, max(now_ms, armed.at_ms))
    state.crons.put(armed.schedule, entry)
    _arm(state, known, armed.schedule, entry)


def forgotten(state: State, repository: str) -> None:
    """Wait for nothing of a repository any more."""
    known = state.known.get(repository)
    if known is None:
        return
    for key in known.crons:
        _forget(state, key)
    state.known.drop(repository)


def entry_of(state: State, armed: Armed) -> tuple[Known, CronEntry] | None:
    """Return the entry that a deadline was armed for."""
    known, entry = state.known.get(armed.subject), state.crons.get(armed.schedule)
    return None if known is None or entry is None else (known, entry)


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


def _entry(
    state: State, key: str, workflow: str, cron: str, timezone: str | None, now_ms: int
) -> CronEntry:
    """Return the entry as it is; one that is new, or had no instant to wait for, is asked anew."""
    old = state.crons.get(key)
    if old is not None and old.due:
        return old
    return CronEntry(workflow, cron, timezone, _next(cron, timezone, now_ms))


def _forget(state: State, key: str) -> None:
    state.disarm(deadlines.cron(key, state.crons[key].due))
    state.crons.drop(key)


def _arm(state: State, known: Known, key: str, entry: CronEntry) -> None:
    if not entry.due:
        return
    state.arm(
        Armed(
            deadline_id=deadlines.cron(key, entry.due),
            delay_ms=0,
            caused_by=known.index_id,
            subject=known.repository,
            repository=known.repository,
            at_ms=entry.due,
            schedule=key,
        )
    )


def _next(cron: str, timezone: str | None, now_ms: int) -> int:
    try:
        return next_after(cron, now_ms, timezone) or 0
    except LanguageError:
        return 0  # a time zone that this version's zone data does not know


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
