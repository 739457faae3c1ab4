"""Cron ticks under schedulers that crash, double and lose their changelog, by seed.

Time jumps, indexes come and go, and ticks are answered or not. Each tick is made at most once, near
its time; once faults stop, every one is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from infra.clock import Clock, ManualClock
from infra.log import LogError
from scheduler.core.self_made import MISSED_AFTER_MS
from schemas import codec
from schemas import events as e
from schemas.topics import EVENTS
from tests.simulation.test_scheduler_faults import decided_twice
from tests.support.cells import indexed
from tests.support.faults import FaultyWorld

REPOSITORY = "sim/cron"
SEEDS = int(os.environ.get("TAILRACE_SEEDS", "30"))
START = int(os.environ.get("TAILRACE_START", "0"))
MINUTE_MS = 60_000
JOBS = "jobs: {a: {runs-on: linux, steps: [{run: 'true'}]}}"
EVERY = f"{{on: {{schedule: [{{cron: '* * * * *'}}]}}, {JOBS}}}"
SECOND = f"{{on: {{schedule: [{{cron: '*/2 * * * *', timezone: Asia/Kolkata}}]}}, {JOBS}}}"
INDEXES = ({"every.yml": EVERY}, {"every.yml": EVERY, "second.yml": SECOND}, {"second.yml": SECOND})


#: How far the clocks of machines are off.
SKEWS_MS = (0, 0, -3_000, 2_500)


@dataclass(frozen=True)
class SkewedClock:
    """The clock of a machine: near the true time, and always as far from it."""

    true: ManualClock
    skew_ms: int

    def now_ms(self) -> int:
        """Return what the machine takes for the time."""
        return self.true.now_ms() + self.skew_ms

    def steady_ms(self) -> int:
        """Return the time since it was started."""
        return self.true.steady_ms()


class World(FaultyWorld):
    """One cell's log with its owners; a planner that finds nothing to run."""

    def __init__(self, seed: int) -> None:
        """Begin with a repository whose workflows tick."""
        super().__init__(seed)
        self.answered: set[str] = set()
        self.put(
            e.RepositoryConfigured(
                event_id="configured", repository=REPOSITORY, provider="git", clone_url="/r"
            )
        )
        self.index()

    def index(self) -> None:
        """The default branch moved, by a clock that is a little off, and is read after a while."""
        at_ms = self.clock.now_ms() + self.chance.randint(-2_000, 2_000)
        at_ms -= self.chance.choice((0, 0, 25_000))
        self.put(indexed(REPOSITORY, self.chance.choice(INDEXES), at_ms))

    def ticks(self) -> list[e.DeliveryReceived]:
        """Return the deliveries that were made."""
        events = [codec.EVENTS.decode(r.value or b"") for r in self.log.records[(EVENTS, 0)]]
        return [event for event in events if isinstance(event, e.DeliveryReceived)]

    def answer(self) -> None:
        """The planner finds nothing to run."""
        for made in self.ticks():
            if made.event_id not in self.answered:
                self.answered.add(made.event_id)
                self.put(
                    e.DeliveryPlanned(
                        event_id=f"planned-{made.event_id}", repository=REPOSITORY,
                        delivery_id=made.delivery_id, workflows=(),
                    )
                )  # fmt: skip

    def machine_clock(self) -> Clock:
        """Every machine's clock is a little off, until faults stop."""
        skew_ms = self.chance.choice(SKEWS_MS) if self.log.faults else 0
        return SkewedClock(self.clock, skew_ms)

    def wait(self) -> None:
        """Time passes: mostly less than a minute, now and then many."""
        self.clock.advance(self.chance.choice((5_000, 20_000, 40_000, 7 * MINUTE_MS)))

    def _owned(self) -> bool:
        try:
            for owner in self.owners:
                for _ in range(6):
                    owner.step(idle_ms=0)
        except LogError:
            return False
        return bool(self.owners)

    def settle(self) -> list[e.DeliveryReceived]:
        """Faults stop; returns the ticks of the ten minutes after that.

        The last owner goes on, in half of the seeds, if it still is one: a new one would forget
        with everything else what the old one got wrong.
        """
        self.log.faults = False
        del self.owners[:-1]
        if self.chance.random() < 0.5 or not self._owned():
            self.owners.clear()
            self.own()
        # an entry goes, and comes back with an index that was begun before its last tick
        for files, begun_ms in ((INDEXES[2], 0), (INDEXES[0], MINUTE_MS)):
            self.put(indexed(REPOSITORY, files, self.clock.now_ms() - begun_ms))
            for _ in range(6):
                self.owners[0].step(idle_ms=0)
        self.clock.advance(10_000)  # past what clocks and indexes differ by
        for _ in range(3):
            self.owners[0].step(idle_ms=0)
        before = len(self.ticks())
        for _ in range(120):
            self.clock.advance(5_000)
            for _ in range(3):
                self.owners[0].step(idle_ms=0)
            self.answer()
        while self.owners[0].next_offset < len(self.log.records[(EVENTS, 0)]):
            self.owners[0].step(idle_ms=0)  # nothing is left that was not decided about
        return self.ticks()[before:]


def test_each_tick_is_made_once_whatever_happens_to_owners() -> None:
    """Never twice, never long after its time, and none is lost while an owner lives."""
    for seed in range(START, START + SEEDS):
        world = World(seed)
        actions = [world.step] * 12 + [world.wait] * 4 + [world.answer, world.answer, world.index]
        actions += [world.own, world.forget]
        for _ in range(world.chance.randint(30, 120)):
            world.chance.choice(actions)()
        last = world.settle()
        ids = [made.delivery_id or "" for made in world.ticks()]
        assert len(ids) == len(set(ids)), f"seed {seed}: a tick was made twice"
        for made in world.ticks():
            late = made.occurred_at - int((made.delivery_id or "").rpartition(":")[2])
            assert 0 <= late <= MISSED_AFTER_MS, f"seed {seed}: {made.delivery_id} is {late} late"
        assert len(last) == 10, f"seed {seed}: {len(last)} ticks in ten minutes"
        expected, recorded = decided_twice(world.log)
        assert recorded == expected, f"seed {seed}: another owner decided otherwise"
