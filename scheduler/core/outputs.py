"""What the core gives back: decisions (events) and orders (lane records), in order."""

from __future__ import annotations

from schemas.events import Event
from schemas.lanes import LaneRecord
from schemas.late import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A lane record for a runner of `pool`; it follows from a decision and changes no state."""

    pool: str
    lane: int
    record: LaneRecord


Output = Event | Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The input that is being handled: its id, its place in the cell and what it is about."""

    event_id: str
    offset: int
    occurred_at: int = 0
    run_id: str | None = None
    delivery_id: str | None = None
