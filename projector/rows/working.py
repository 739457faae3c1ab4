"""The rows that a batch of events looks at and changes, and where in the log the fold stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from projector.tables import ENTITIES, Key, Row, TrailEntry

RowT = TypeVar("RowT", bound=Row)
Needed = tuple[type[Row], Key]


class UnfoldableError(ValueError):
    """The record decodes but no row can hold it; it is set aside like one that doesn't decode."""


@dataclass(slots=True)
class WorkingSet:
    """The rows that a batch looks at and changes; what is not there yet is None.

    A job that is here has its live attempt here as well: the shell loads and drops both together.
    """

    known: dict[type[Row], dict[Key, Row | None]] = field(
        default_factory=lambda: {table: {} for table in ENTITIES}
    )
    changed: dict[type[Row], dict[Key, Row]] = field(
        default_factory=lambda: {table: {} for table in ENTITIES}
    )
    trail: list[TrailEntry] = field(default_factory=list)
    run_ids: dict[str, None] = field(default_factory=dict)
    archived: list[tuple[str, int]] = field(default_factory=list)

    def start_batch(self) -> None:
        """Forget what changed; keep the rows."""
        for rows in self.changed.values():
            rows.clear()
        self.trail.clear()
        self.run_ids.clear()
        self.archived.clear()

    def size(self) -> int:
        """Return how many rows are at hand."""
        return sum(map(len, self.known.values()))


@dataclass(slots=True)
class At:
    """A working set at one place of the log."""

    rows: WorkingSet
    cell: int
    offset: int

    def find(self, table: type[RowT], *key: Any) -> RowT | None:
        """Return a row that `needs` named, None when there is none; KeyError if it did not."""
        return self.rows.known[table][key]  # type: ignore[return-value]

    def put(self, row: Row) -> None:
        """Note that a row is new or changed."""
        key = row.identity()
        table = type(row)
        self.rows.known[table][key] = row
        self.rows.changed[table][key] = row

    def touch(self, row: Any) -> None:
        """Note that a row changed, and where."""
        if row.changed_offset != self.offset:
            row.changed_offset = self.offset
            self.put(row)
