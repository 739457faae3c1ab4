"""The sign of life: one at a time, and what follows when none is acknowledged."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infra.clock import ManualClock
from infra.log import Append, MemoryLog, MemoryWriter
from runner.heartbeat import CUT_OFF_MS, PERIOD_MS, Heart
from tests.support.eventually import eventually

Ack = Callable[[Exception | None], None]


class HeldWriter(MemoryWriter):
    """A log that acknowledges when the test says so."""

    def __init__(self) -> None:
        """Hold everything."""
        super().__init__(MemoryLog())
        self.held: list[Ack] = []
        self.sent = 0

    def append(self, record: Append, on_ack: Ack) -> None:  # noqa: ARG002
        """Hold a record."""
        self.sent += 1
        self.held.append(on_ack)


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that stands still."""
    return ManualClock()


def test_contact_is_as_old_as_the_last_acknowledged_heartbeat(clock: ManualClock) -> None:
    """No second one follows while one is under way; after 12 s the contact is lost, and found."""
    writer = HeldWriter()
    cut_offs: list[int] = []
    heart = Heart(
        writer, clock,
        message=lambda *, leaving: Append("heartbeats", 0, None, b"%d" % leaving),
        on_cut_off=lambda: cut_offs.append(1), feed=lambda: None, on_fatal=lambda _: None,
    )  # fmt: skip
    heart.start()
    try:
        eventually(lambda: writer.sent == 1, what="the first heartbeat")
        clock.advance(PERIOD_MS + 1)
        clock.advance(CUT_OFF_MS - PERIOD_MS)
        eventually(lambda: cut_offs, what="the loss of contact")
        assert writer.sent == 1
        assert not heart.in_contact()

        writer.held.pop()(None)
        eventually(lambda: writer.sent == 2, what="the next heartbeat")
        writer.held.pop()(None)

        assert heart.in_contact()
    finally:
        heart.stop(goodbye=False)
