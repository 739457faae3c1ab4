"""Events of the whole installation: every cell has them in one order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from infra.log import Append
from ingest.log import EventLog
from schemas import codec
from schemas.events import VariableSet

CELLS = 3


class LateWriter:
    """A broker's client that acknowledges each record a moment later, from a thread of its own."""

    def __init__(self) -> None:
        """Nothing is written."""
        self.cells: list[list[VariableSet]] = [[] for _ in range(CELLS)]

    def append_at(self, record: Append, on_stored: Callable[[int, Exception | None], None]) -> None:
        """Take the record now and say so later."""
        event = codec.EVENTS.decode(record.value or b"")
        assert isinstance(event, VariableSet)
        taken = self.cells[record.partition]
        taken.append(event)
        threading.Timer(0.005, on_stored, (len(taken) - 1, None)).start()

    def append(self, record: Append, on_ack: Callable[[Exception | None], None]) -> None:
        """Take the record now and say so later."""
        self.append_at(record, lambda _, error: on_ack(error))

    def append_all(self, records: Sequence[Append], *, timeout_ms: int) -> None:
        """Nobody here writes so."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is kept back."""


def test_what_is_told_to_all_cells_at_once_has_one_order_in_all() -> None:
    """Their times rise as the log does, also where the clock stood still or was set back."""
    writer = LateWriter()

    async def several() -> list[int]:
        log = EventLog(writer, cells=CELLS)
        events = [
            VariableSet(event_id=f"e{n}", occurred_at=100 - n, repository="", name="A", value="x")
            for n in range(4)
        ]
        return await asyncio.gather(*map(log.append_everywhere, events))

    assert asyncio.run(several()) == [0, 1, 2, 3]
    assert writer.cells[0] == writer.cells[1] == writer.cells[2]
    assert [e.occurred_at for e in writer.cells[0]] == [100, 101, 102, 103]
