"""What a batch of lane records means for one boot of a runner; pure.

A batch is read whole before anything is done: an assignment whose withdrawal lies beside it is
declined and never starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from schemas.lanes import Assignment, CancelOrder, Dismissed, LaneRecord, Welcome, Withdraw
from schemas.late import dataclass

_REMEMBERED_MAX = 4096
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The scheduler knows this boot."""


@dataclass(frozen=True, slots=True)
class Dismiss:
    """This boot is over: kill its jobs and start again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Begin:
    """Accept the assignment and run it; `cancelled` came in the same batch."""

    assignment: Assignment
    cancelled: CancelOrder | None = None


@dataclass(frozen=True, slots=True)
class Decline:
    """Give the assignment back; `order_id` is the withdrawal's."""

    assignment: Assignment
    order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a job that was begun."""

    order: CancelOrder


Action = Welcomed | Dismiss | Begin | Decline | Cancel


@dataclass(slots=True)
class LaneState:
    """One boot's view of its lane; `begun` holds what it accepted or declined."""

    runner_id: str
    boot_id: str
    begun: dict[Key, None] = field(default_factory=dict)

    def remember(self, key: Key) -> None:
        """Note that this attempt was answered."""
        self.begun[key] = None
        while len(self.begun) > _REMEMBERED_MAX:
            del self.begun[next(iter(self.begun))]


def read_batch(state: LaneState, records: Iterable[LaneRecord]) -> list[Action]:
    """Return what to do about a batch, in its order; what is for another boot is ignored."""
    mine = [r for r in records if (r.runner_id, r.boot_id) == (state.runner_id, state.boot_id)]
    withdrawn = {_key(r): r for r in mine if isinstance(r, Withdraw)}
    cancelled = {_key(r): r for r in mine if isinstance(r, CancelOrder)}
    actions: list[Action] = []
    for record in mine:
        match record:
            case Welcome():
                actions.append(Welcomed())
            case Dismissed(reason=reason):
                return [Dismiss(reason)]
            case Assignment() if _key(record) not in state.begun:
                key = _key(record)
                state.remember(key)
                order = withdrawn.get(key)
                if order is None:
                    actions.append(Begin(record, cancelled.pop(key, None)))
                else:
                    actions.append(Decline(record, order.order_id, order.reason or "withdrawn"))
            case CancelOrder() if cancelled.get(_key(record)) is record:
                actions.append(Cancel(record))
            case _:
                pass  # a repeat, or the withdrawal of what has begun: the job's report decides
    return actions


def _key(record: LaneRecord) -> Key:
    return record.job_id or "", record.attempt or 0
