"""What the shell keeps between steps, on a log in memory and a clock that is set by hand."""

from __future__ import annotations

from infra.clock import ManualClock
from infra.log import Append, MemoryLog
from scheduler.shell import CellShell
from schemas import codec
from schemas import events as e
from schemas.events import Event
from schemas.topics import EVENTS
from tests.support.cells import REPOSITORY, indexed

MINUTE_MS = 60_000
EVERY = (
    "{on: {schedule: [{cron: '* * * * *'}]}, jobs: {a: {runs-on: linux, steps: [{run: 'true'}]}}}"
)


def put(log: MemoryLog, *events: Event) -> None:
    """Append inputs."""
    for event in events:
        headers = codec.event_headers(event, source="test", occurred_at=0)
        log.put(Append(EVENTS, 0, b"k", codec.EVENTS.encode(event), headers))


def settle(shell: CellShell) -> None:
    """Let the owner read all, its own DeadlinePassed too."""
    for _ in range(4):
        shell.step(idle_ms=0)


def ticks(log: MemoryLog) -> list[int]:
    """Return the instants of the ticks that were made."""
    events = [codec.EVENTS.decode(r.value or b"") for r in log.records[(EVENTS, 0)]]
    made = [event for event in events if isinstance(event, e.DeliveryReceived)]
    return [int((event.delivery_id or "").rpartition(":")[2]) for event in made]


def test_an_entry_that_an_index_brings_back_after_its_tick_goes_on_ticking() -> None:
    """A workflow goes and comes back in indexes stamped before a tick that one owner has made."""
    clock, log = ManualClock(), MemoryLog()
    shell = CellShell(log=log, clock=clock, number=0, version="test")
    shell.take()
    before = clock.now_ms()
    first = before - before % MINUTE_MS + MINUTE_MS
    put(
        log,
        e.RepositoryConfigured(
            event_id="configured", repository=REPOSITORY, provider="git", clone_url="/r"
        ),
        indexed(REPOSITORY, {"every.yml": EVERY}, before),
    )
    settle(shell)
    clock.advance(first - before)
    settle(shell)
    assert ticks(log) == [first]

    put(log, indexed(REPOSITORY, {}, before + 1))
    settle(shell)
    put(log, indexed(REPOSITORY, {"every.yml": EVERY}, before + 2))
    settle(shell)
    assert ticks(log) == [first], "a tick was made twice"
    for count in (1, 2):
        clock.advance(MINUTE_MS)
        settle(shell)
        assert ticks(log) == [first + n * MINUTE_MS for n in range(count + 1)]


def test_what_passed_and_was_read_back_is_not_remembered() -> None:
    """An owner that ticks for months holds no more than one that has just begun."""
    clock, log = ManualClock(), MemoryLog()
    shell = CellShell(log=log, clock=clock, number=0, version="test")
    shell.take()
    put(
        log,
        e.RepositoryConfigured(
            event_id="configured", repository=REPOSITORY, provider="git", clone_url="/r"
        ),
        indexed(REPOSITORY, {"every.yml": EVERY}, clock.now_ms()),
    )
    for _ in range(20):
        settle(shell)
        clock.advance(MINUTE_MS)
    settle(shell)
    assert len(ticks(log)) == 20
    assert len(shell._passed) == 0  # noqa: SLF001 - a set that only grows shows nowhere else
