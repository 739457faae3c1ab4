"""The fleet's shell on a log in memory: what is appended, where, and in which order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from infra.clock import ManualClock
from infra.log import Append, MemoryLog, Record
from infra.metrics import Meters
from scheduler.fleet import Fleet, FleetError, awaitable_appends
from schemas import topics
from schemas.codec import EVENTS, HEARTBEATS
from schemas.events import Event, RunnerJoined, RunnerLost
from schemas.streams import Heartbeat

BEAT = Heartbeat(
    runner_id="r1", boot_id="b1", pool="default", labels=("linux",), slots=2, lane=1,
    welcomed=True, occurred_at=1,
)  # fmt: skip


@dataclass
class World:
    """A log, a clock and a fleet that reads one from the other."""

    cells: int = 1
    log: MemoryLog = field(default_factory=MemoryLog)
    clock: ManualClock = field(default_factory=ManualClock)
    next_offset: int = 0

    def __post_init__(self) -> None:
        """Start a fleet."""
        self.fleet = self.new_fleet("f1")

    def new_fleet(self, fleet_id: str) -> Fleet:
        """Return a fleet that knows nothing yet."""
        return Fleet(
            append=awaitable_appends(self.log.writer()),
            open_reader=self.log.reader,
            cells=self.cells,
            clock=self.clock,
            fleet_id=fleet_id,
            meters=Meters(),
        )

    def hear(self, heartbeat: Heartbeat) -> None:
        """Append a heartbeat as a runner does."""
        key = topics.heartbeat_key(heartbeat.runner_id, heartbeat.boot_id).encode()
        self.log.put(Append(topics.HEARTBEATS, 0, key, HEARTBEATS.encode(heartbeat)))

    async def tick(self, count: int = 1) -> None:
        """Let seconds pass."""
        for _ in range(count):
            self.clock.advance(1_000)
            await self.fleet.tick({0})

    async def read(self) -> None:
        """Let the fleet read to the end, as Faust would: commit after each record."""
        while self.next_offset < len(self.records):
            await self.fleet.handle(self.records[self.next_offset])
            self.next_offset += 1

    @property
    def records(self) -> list[Record]:
        """The records on `heartbeats`."""
        return self.log.records[(topics.HEARTBEATS, 0)]

    def events(self, cell: int = 0) -> list[Event]:
        """Return the events of a cell."""
        stored = self.log.records[(topics.EVENTS, cell)]
        return [EVENTS.decode(record.value or b"") for record in stored]


def test_facts_go_to_the_cell_of_the_pool_with_their_headers() -> None:
    """With several cells the pool's name says which; the key is the runner."""
    world = World(cells=7)
    world.hear(BEAT)
    asyncio.run(world.read())
    cell = topics.cell_of("default", 7)
    [record] = world.log.records[(topics.EVENTS, cell)]
    [event] = world.events(cell)
    assert isinstance(event, RunnerJoined)
    assert record.key == b"r1"
    assert record.header("ce_id") == event.event_id.encode()
    assert record.header("ce_type") == b"tailrace.RunnerJoined"
    assert record.header("ce_source") == b"tailrace/fleet"


def test_a_silent_boot_is_lost_and_then_forgotten() -> None:
    """After RunnerLost a record without a value lets compaction drop the boot."""
    world = World()

    async def story() -> None:
        await world.tick()
        world.hear(BEAT)
        await world.tick(15)
        await world.read()

    asyncio.run(story())
    assert [type(event) for event in world.events()] == [RunnerJoined, RunnerLost]
    assert world.records[-1].value is None
    assert world.records[-1].key == b"r1@b1"
    assert world.fleet.states[0].boots == {}


def test_a_new_fleet_knows_the_boots_of_the_one_before() -> None:
    """A boot that fell silent while no fleet ran is lost fifteen ticks after the next one came."""
    world = World()

    async def story() -> None:
        await world.tick()
        world.hear(BEAT)
        await world.read()
        world.fleet = world.new_fleet("f2")
        await world.tick(15)
        await world.read()
        assert [type(event) for event in world.events()] == [RunnerJoined]
        await world.tick()
        await world.read()

    asyncio.run(story())
    assert [type(event) for event in world.events()] == [RunnerJoined, RunnerLost]


def test_a_crash_between_facts_and_commit_repeats_them_with_the_same_ids() -> None:
    """Whatever is said twice has one event_id."""
    world = World()

    async def story() -> None:
        await world.tick()
        world.hear(BEAT)
        await world.tick(15)
        await world.read()
        world.next_offset = 0  # nothing was committed
        world.fleet = world.new_fleet("f2")
        await world.read()

    asyncio.run(story())
    ids = [event.event_id for event in world.events()]
    assert len(ids) == 4
    assert len(set(ids)) == 2


def test_a_record_that_nobody_can_read_is_set_aside_with_its_origin() -> None:
    """Damaged bytes go to dead-letters as they are, and the next record is read."""
    world = World()
    world.log.put(Append(topics.HEARTBEATS, 0, b"k", b"\xff\x00garbage"))
    world.hear(BEAT)
    asyncio.run(world.read())
    [dead] = world.log.records[(topics.DEAD_LETTERS, 0)]
    assert (dead.key, dead.value) == (b"k", b"\xff\x00garbage")
    assert dead.header("x-origin-topic") == b"heartbeats"
    assert dead.header("x-origin-offset") == b"0"
    assert [type(event) for event in world.events()] == [RunnerJoined]


def test_a_record_of_a_newer_version_stops_the_fleet() -> None:
    """An unknown schema id is never skipped: the process ends and waits for its upgrade."""
    world = World()
    world.log.put(Append(topics.HEARTBEATS, 0, b"k", b"\x00\x00\x0f\x42\x40rest"))
    with pytest.raises(FleetError, match="newer version"):
        asyncio.run(world.read())


def test_readiness_follows_its_own_ticks() -> None:
    """Starting without a tick read back, ok with one, degraded when they stop coming."""
    world = World()
    assert world.fleet.readiness(set(), 0)["status"] == "starting"
    assert world.fleet.readiness({0}, 0)["status"] == "starting"

    async def story() -> None:
        await world.tick()
        await world.read()

    asyncio.run(story())
    assert world.fleet.readiness({0}, 3) == {
        "status": "ok", "lag": 3, "boots": 0, "partitions": [0],
    }  # fmt: skip
    world.clock.advance(6_000)
    assert world.fleet.readiness({0}, 0)["status"] == "degraded"
