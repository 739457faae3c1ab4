"""A cell's state in `scheduler-state`: what is written with each commit, and how it comes back.

Two ways lead to the same state: the changelog's rows, or, when there are none of this version,
folding `events` with the decisions that are recorded there. Nothing is ever decided again.
"""

from __future__ import annotations

import logging
from collections import deque

import msgspec

from infra.log import Append, Log, Record
from scheduler.core.admission import IRRELEVANT
from scheduler.core.cell import Cell
from scheduler.core.index import Index
from scheduler.core.state import STATE_VERSION, State, dump_changes, load_row
from schemas.codec import EVENTS as CODEC
from schemas.events import Event
from schemas.late import dataclass
from schemas.topics import EVENTS, SCHEDULER_STATE

logger = logging.getLogger(__name__)

POSITION = "position"
DECIDER = "decider"
INPUT_OFFSET = "input-offset"
NUMBER = "n"
_TYPE = "ce_type"
_TYPE_PREFIX = b"tailrace."


class Position(msgspec.Struct):
    """The record that every commit writes: where to go on, and in what shape the rows are."""

    next_offset: int
    version: int = STATE_VERSION


@dataclass(slots=True)
class Restored:
    """A cell as it was, where to go on, and changelog keys that are no longer rows."""

    cell: Cell
    next_offset: int
    refolded: bool
    obsolete: tuple[str, ...] = ()


def restore(log: Log, number: int) -> Restored:
    """Bring a cell back. Only the owner of its transactional id may ask: nobody else writes then.

    Raises CodecError for a record that can't be read: the scheduler never guesses.
    """
    rows: dict[str, bytes] = {}
    for record in log.read_to_end(SCHEDULER_STATE, number, None):
        key = (record.key or b"").decode()
        if record.value is None:
            rows.pop(key, None)
        else:
            rows[key] = record.value
    position = rows.pop(POSITION, None)
    if position is not None:
        decoded = msgspec.json.decode(position, type=Position)
        if decoded.version == STATE_VERSION:
            state = State()
            for key, value in rows.items():
                load_row(state, key, value)
            return Restored(Cell(number, state), decoded.next_offset, refolded=False)
        logger.warning(
            "changelog of cell %d has state version %d, this is %d: folding events instead",
            number, decoded.version, STATE_VERSION,
        )  # fmt: skip
    return _refold(log, number, tuple(rows))


def _refold(log: Log, number: int, old_keys: tuple[str, ...]) -> Restored:
    """Fold `events`: each input, then the recorded decisions that name it.

    Inputs behind the last one that a decision names may not have been decided about, so the cell
    goes live there: those that were, and led to nothing, lead to nothing again.
    """
    cell = Cell(number)
    waiting: deque[tuple[int, Event]] = deque()
    last_named = -1
    next_offset = 0
    for record in log.read_to_end(EVENTS, number, None):
        named = record.header(INPUT_OFFSET) if record.header(DECIDER) else None
        if named is None:
            event = read_input(record)
            if event is not None:
                waiting.append((record.offset, event))
            continue
        last_named = int(named)
        while waiting and waiting[0][0] <= last_named:
            cell.refold(waiting.popleft()[1])
        if record.value is not None:
            cell.replay(CODEC.decode(record.value))
        next_offset = last_named + 1
    state = cell.state
    for table in state.tables:
        table.changed.update(table.rows)
    live = {key for key, _ in dump_changes(state)}
    cell.index = Index.of(state)
    obsolete = tuple(key for key in old_keys if key not in live)
    return Restored(cell, next_offset, refolded=True, obsolete=obsolete)


def read_input(record: Record) -> Event | None:
    """Return the event if it is an input that concerns the core; CodecError if it is damaged."""
    if record.header(DECIDER) is not None or record.value is None:
        return None
    kind = record.header(_TYPE)
    if kind is not None and kind.removeprefix(_TYPE_PREFIX).decode() in IRRELEVANT:
        return None
    return CODEC.decode(record.value)


def commit_records(cell: Cell, number: int, next_offset: int) -> list[Append]:
    """Return the changelog's part of a transaction: every changed row and the position."""
    records = [
        Append(SCHEDULER_STATE, number, key.encode(), value)
        for key, value in dump_changes(cell.state)
    ]
    position = msgspec.json.encode(Position(next_offset=next_offset))
    records.append(Append(SCHEDULER_STATE, number, POSITION.encode(), position))
    return records
