"""An event as the audit trail keeps it: its columns, and its own fields without what is large.

The trail points to the record in the log, which keeps everything; a text longer than
`TEXT_CHARS_MAX` is there as its length only. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from projector.tables import TrailEntry
from schemas.events import KINDS, Event, LogGroup

TEXT_CHARS_MAX = 4096
_COLUMNS = frozenset(column.name for column in fields(Event))


def entry(event: Event, cell: int, offset: int) -> TrailEntry:
    """Return the trail's row of an event."""
    kind = type(event)
    return TrailEntry(
        cell=cell,
        offset=offset,
        event_id=event.event_id,
        kind=kind.__name__,
        occurred_at=event.occurred_at,
        repository=event.repository,
        run_id=event.run_id,
        caused_by=event.caused_by,
        delivery_id=event.delivery_id,
        job_id=event.job_id,
        attempt=event.attempt,
        runner_id=event.runner_id,
        boot_id=event.boot_id,
        data=_OWN_FIELDS[kind](event),
    )


def _own_fields(kind: type[Event]) -> Callable[[Event], dict[str, Any]]:
    names = tuple(column.name for column in fields(kind) if column.name not in _COLUMNS)

    def take(event: Event) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name in names:
            value = getattr(event, name)
            kind = type(value)
            plain = kind is int or (kind is str and len(value) <= TEXT_CHARS_MAX)
            data[name] = value if plain else _compact(value)
        return data

    return take


def _compact(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARS_MAX else {"omitted_chars": len(value)}
    if isinstance(value, tuple):
        if value and isinstance(value[0], LogGroup):
            return {"omitted_items": len(value)}  # the step has them
        return [_compact(item) for item in value]
    if isinstance(value, dict):
        return {key: _compact(item) for key, item in value.items()}
    if is_dataclass(value):
        return {c.name: _compact(getattr(value, c.name)) for c in fields(value)}
    return str(value)


_OWN_FIELDS = {kind: _own_fields(kind) for kind in KINDS}
