"""The fleet's pure half: histories of heartbeats and ticks, and the facts that they give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from scheduler.liveness import LOST_AFTER_TICKS, Forgotten, Input, Liveness, decide, evolve
from schemas.events import RunnerJoined, RunnerLost
from schemas.streams import Heartbeat, Tick

FULL = LOST_AFTER_TICKS


def beat(runner: str = "r1", boot: str = "b1", *, welcomed: bool = True,
         leaving: bool = False) -> Heartbeat:  # fmt: skip
    """Return a heartbeat."""
    return Heartbeat(
        runner_id=runner, boot_id=boot, pool="default", labels=("linux",), slots=4, lane=3,
        welcomed=welcomed, leaving=leaving, occurred_at=5_000,
    )  # fmt: skip


def ticks(count: int, *, first: int = 1, fleet: str = "f1", step_ms: int = 1_000) -> list[Tick]:
    """Return ticks of one fleet, a second apart unless told otherwise."""
    return [
        Tick(number=n, fleet_id=fleet, occurred_at=10_000 + n * step_ms)
        for n in range(first, first + count)
    ]


def facts_of(history: Iterable[Input], state: Liveness | None = None) -> list[str]:
    """Return what a history gives, in short: `joined r1 b1`, `lost r1 b1 silent`."""
    state = state or Liveness()
    said: list[str] = []
    for record in history:
        for fact in decide(state, record):
            match fact.event:
                case RunnerJoined(runner_id=runner, boot_id=boot):
                    said.append(f"joined {runner} {boot}")
                case RunnerLost(runner_id=runner, boot_id=boot, reason=reason):
                    said.append(f"lost {runner} {boot} {reason}")
                case other:
                    said.append(f"unexpected {other}")
        evolve(state, record)
    return said


@dataclass(frozen=True, slots=True)
class Scenario:
    """A history and what the fleet says of it."""

    claim: str
    history: list[Input]
    facts: list[str]


JOINED = "joined r1 b1"
SILENT = "lost r1 b1 silent"

SCENARIOS = [
    Scenario("the first sight of a boot is a joining", [beat()], [JOINED]),
    Scenario("a welcomed boot that is known says nothing new", [beat(), beat()], [JOINED]),
    Scenario(
        "an unwelcomed boot joins with every heartbeat, for its welcome may be late",
        [beat(welcomed=False), beat(welcomed=False), beat()],
        [JOINED, JOINED],
    ),
    Scenario("one tick fewer than the limit loses nobody", [*ticks(1), beat(),
             *ticks(FULL - 1, first=2)], [JOINED]),
    Scenario("the last tick of the limit loses a silent boot, once", [*ticks(1), beat(),
             *ticks(FULL + 20, first=2)], [JOINED, SILENT]),
    Scenario(
        "a heartbeat starts the count again",
        [*ticks(1), beat(), *ticks(FULL - 1, first=2), beat(), *ticks(FULL - 1, first=FULL + 1)],
        [JOINED],
    ),
    Scenario(
        "a new fleet gives every boot its full time, from its first tick on",
        [*ticks(1), beat(), *ticks(FULL - 1, first=2), *ticks(FULL, fleet="f2")],
        [JOINED],
    ),
    Scenario(
        "silence under a new fleet counts in full, then loses",
        [*ticks(1), beat(), *ticks(FULL - 1, first=2), *ticks(FULL + 1, fleet="f2")],
        [JOINED, SILENT],
    ),
    Scenario(
        "a tick that was not appended gives every boot its full time",
        [*ticks(1), beat(), *ticks(FULL - 1, first=2), *ticks(FULL, first=FULL + 2)],
        [JOINED],
    ),
    Scenario(
        "ticks that were held up by an outage lose nobody, though they come all at once",
        [*ticks(1), beat(), *ticks(3 * FULL, first=2, step_ms=3_001)],
        [JOINED],
    ),
    Scenario(
        "a clock that was set back loses nobody at that tick",
        [*ticks(1), beat(), *ticks(FULL - 1, first=2),
         Tick(number=FULL + 1, fleet_id="f1", occurred_at=1)],
        [JOINED],
    ),
    Scenario("a boot that leaves is lost at once, as left", [beat(), beat(leaving=True),
             *ticks(2 * FULL)], [JOINED, "lost r1 b1 left"]),
    Scenario("leaving counts though the boot was never seen", [beat(leaving=True)],
             ["lost r1 b1 left"]),
    Scenario(
        "a lost boot that speaks again joins again, so that it can be told to go",
        [*ticks(1), beat(), *ticks(FULL, first=2), beat()],
        [JOINED, SILENT, JOINED],
    ),
    Scenario(
        "boots of one runner are counted apart",
        [*ticks(1), beat(boot="b1"), beat(boot="b2"), *ticks(FULL - 1, first=2), beat(boot="b2"),
         *ticks(1, first=FULL + 1)],
        [JOINED, "joined r1 b2", SILENT],
    ),
    Scenario(
        "only the silent one of several runners is lost",
        [*ticks(1), beat("r1"), beat("r2"), *ticks(8, first=2), beat("r2"),
         *ticks(7, first=10)],
        [JOINED, "joined r2 b1", SILENT],
    ),
    Scenario("a boot that was written off is not lost again",
             [beat(), Forgotten(runner_id="r1", boot_id="b1"), *ticks(2 * FULL)], [JOINED]),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.claim)
def test_the_fleet_says(scenario: Scenario) -> None:
    """A history of heartbeats and ticks gives exactly these facts."""
    assert facts_of(scenario.history) == scenario.facts


def test_joining_carries_what_the_heartbeat_announced() -> None:
    """RunnerJoined has the boot's token, its capacity and the cell's pool."""
    [fact] = decide(Liveness(), beat(welcomed=False))
    event = fact.event
    assert isinstance(event, RunnerJoined)
    assert fact.pool == "default"
    assert (event.runner_id, event.boot_id, event.slots, event.lane) == ("r1", "b1", 4, 3)
    assert event.labels == ("linux",)
    assert event.occurred_at == 5_000


def test_a_repeat_has_the_same_id() -> None:
    """Facts that are said twice have one event_id, and other boots have others."""
    state = Liveness()
    first, second = decide(state, beat()), decide(state, beat())
    assert first[0].event.event_id == second[0].event.event_id
    assert first[0].event.event_id != decide(state, beat(boot="b2"))[0].event.event_id
