"""What the planner knows from the log: repositories, and which deliveries wait for an answer. Pure.

A delivery is answered by its DeliveryPlanned, a RepositoryConfigured by a WorkflowsIndexed. The
position to start from again is the first record that is not answered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field

from schemas.events import (
    DeliveryPlanned,
    DeliveryReceived,
    Event,
    RepositoryConfigured,
    RepositoryRemoved,
    WorkflowsIndexed,
)
from schemas.late import dataclass

Work = DeliveryReceived | RepositoryConfigured
KINDS = frozenset(
    {"DeliveryReceived", "DeliveryPlanned", "RepositoryConfigured", "RepositoryRemoved",
     "WorkflowsIndexed"}
)  # fmt: skip
Place = tuple[int, int]


@dataclass(slots=True)
class Ledger:
    """Folds `events`; `waiting` maps an event_id to its place (cell, offset) and the event.

    `listed` holds, by repository, the events that the workflows of its default branch list;
    `agreed` has the repositories whose forge named the default branch that we know.
    """

    repositories: dict[str, RepositoryConfigured] = field(default_factory=dict)
    waiting: dict[str, tuple[Place, Work]] = field(default_factory=dict)
    next_offsets: dict[int, int] = field(default_factory=dict)
    listed: dict[str, frozenset[str]] = field(default_factory=dict)
    agreed: set[str] = field(default_factory=set)

    def fold(self, event: Event | None, cell: int, offset: int) -> Work | None:
        """Take the record at `offset` (None: of no interest); returns what now wants an answer."""
        self.next_offsets[cell] = offset + 1
        match event:
            case DeliveryReceived():
                known = self.repositories.get(event.repository)
                if known is not None and event.default_branch == known.default_branch:
                    self.agreed.add(event.repository)
                return self._wait(event, cell, offset)
            case RepositoryConfigured():
                self.repositories[event.repository] = event
                self.agreed.discard(event.repository)
                return self._wait(event, cell, offset)
            case RepositoryRemoved():
                self.repositories.pop(event.repository, None)
                self.listed.pop(event.repository, None)
            case WorkflowsIndexed():
                self.listed[event.repository] = _events_of(event)
                self.answered(event.caused_by or "", by=event)
            case DeliveryPlanned():
                self.answered(event.caused_by or "", by=event)
            case _:
                pass
        return None

    def answered(self, event_id: str, *, by: Event | None) -> None:
        """Note that the log has an event `by` which another is answered (None: it needs none).

        The index that a push brings about comes before the push's own answer and is none.
        """
        _, work = self.waiting.get(event_id, (None, None))
        if isinstance(work, DeliveryReceived) and not isinstance(by, DeliveryPlanned | None):
            return
        self.waiting.pop(event_id, None)

    def is_waiting(self, event_id: str) -> bool:
        """Tell whether an event still wants its answer."""
        return event_id in self.waiting

    def in_order(self) -> list[Work]:
        """Return what waits, in the order of the log."""
        return [work for _, work in sorted(self.waiting.values(), key=lambda entry: entry[0])]

    def positions(self) -> Mapping[int, int]:
        """Return, by cell, the offset from which everything unanswered is read again."""
        found = dict(self.next_offsets)
        for (cell, offset), _ in self.waiting.values():
            found[cell] = min(found[cell], offset)
        return found

    def _wait(self, event: Work, cell: int, offset: int) -> Work | None:
        # a webhook sent twice has one id: its first record is answered for both
        if event.event_id in self.waiting:
            return None
        self.waiting[event.event_id] = ((cell, offset), event)
        return event


def _events_of(index: WorkflowsIndexed) -> frozenset[str]:
    listed: set[str] = set()
    for workflow in index.workflows:
        triggers = json.loads(workflow.triggers_json)
        listed |= {event["event"] for event in triggers.get("events", ())}
    return frozenset(listed)
