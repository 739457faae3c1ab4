"""A cron tick from the file in git to the assignment: real git, planner and scheduler, one log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from infra.clock import ManualClock
from infra.log import Append, FencedError, MemoryLog
from infra.metrics import Meters
from ingest.mirrors import Mirrors, Origin
from ingest.planner.ledger import Ledger
from ingest.planner.plan import Planner
from scheduler.shell import CellShell
from schemas import codec
from schemas import events as e
from schemas.events import Event
from schemas.lanes import Assignment
from schemas.topics import EVENTS, lane_topic
from tests.support.gitrepo import GitRepo, workflow

E = TypeVar("E", bound=Event)
REPOSITORY = "ada/nightly"
FILE = ".github/workflows/nightly.yml"
MINUTE_MS = 60_000
CRON = "{schedule: [{cron: '* * * * *'}]}"


class World:
    """A log in memory, a repository on disk, a planner, and schedulers under a clock of ours."""

    def __init__(self, folder: Path) -> None:
        """Register the repository and a runner."""
        (folder / "git").mkdir()
        self.git = GitRepo(folder / "git")
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.ledger = Ledger()
        self.planner = Planner(public_url="http://ci.example")
        self.mirrors = Mirrors(folder / "home", Meters(), self.clock)
        self.read = 0
        self.configured = e.RepositoryConfigured(
            event_id="configured", repository=REPOSITORY, provider="git",
            clone_url=str(self.git.bare),
        )  # fmt: skip
        self.put(self.configured)
        self.put(
            e.RunnerJoined(
                event_id="joined", runner_id="r1", boot_id="b1", pool="default",
                labels=("ubuntu-latest",), slots=9, lane=0,
            )
        )  # fmt: skip

    def put(self, event: Event) -> None:
        """Append an input."""
        headers = codec.event_headers(event, source="test", occurred_at=0)
        self.log.put(Append(EVENTS, 0, b"k", codec.EVENTS.encode(event), headers))

    def of(self, kind: type[E]) -> list[E]:
        """Return the log's events of a kind."""
        events = [codec.EVENTS.decode(r.value or b"") for r in self.log.records[(EVENTS, 0)]]
        return [event for event in events if isinstance(event, kind)]

    def plan(self) -> None:
        """Let the planner answer what it finds in the log, as its service does."""
        origin = Origin(
            repository=REPOSITORY, clone_url=self.configured.clone_url, default_branch="main"
        )
        records = self.log.records[(EVENTS, 0)][self.read :]
        for record in records:
            self.read = record.next_offset
            work = self.ledger.fold(codec.EVENTS.decode(record.value or b""), 0, record.offset)
            if work is None:
                continue
            with self.mirrors.use(origin) as mirror:
                now_ms = self.clock.now_ms()
                if isinstance(work, e.DeliveryReceived):
                    self.put(self.planner.plan(work, self.configured, mirror, now_ms=now_ms))
                else:
                    index = self.planner.index(
                        self.configured, mirror, cause=work.event_id, now_ms=now_ms
                    )
                    assert index is not None
                    self.put(index)

    def own(self) -> CellShell:
        """A scheduler takes the cell."""
        shell = CellShell(log=self.log, clock=self.clock, number=0, version="test")
        shell.take()
        return shell

    def turn(self, *shells: CellShell) -> None:
        """Let everything happen that can happen now."""
        for _ in range(4):
            self.plan()
            for shell in shells:
                shell.step(idle_ms=0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Yield a world."""
    made = World(tmp_path)
    yield made
    made.mirrors.close()


def test_a_cron_entry_in_git_becomes_a_job_each_minute(world: World) -> None:
    """Of the default branch; that its commit asks to skip workflows means nothing here."""
    sha = world.git.commit({FILE: workflow(CRON)}, message="Add it [skip ci]")
    shell = world.own()
    world.turn(shell)
    assert world.of(e.RunPlanned) == []
    for count in (1, 2, 3):
        world.clock.advance(MINUTE_MS)
        world.turn(shell)
        assert len(world.of(e.RunPlanned)) == count
    planned = world.of(e.RunPlanned)[-1]
    assert (planned.event, planned.sha, planned.ref) == ("schedule", sha, "refs/heads/main")
    assert (planned.workflow, planned.run_number) == (FILE, 3)
    # nobody runs the jobs here: the runner got its first order, and is given up on after that
    order = codec.LANES.decode(world.log.records[(lane_topic("default"), 0)][1].value or b"")
    assert isinstance(order, Assignment)
    assert '"event_name":"schedule"' in order.contexts_json
    assert '"schedule":"* * * * *"' in order.contexts_json
    assert len(world.of(e.JobScheduled)) >= 3


def test_a_take_over_neither_doubles_nor_loses_a_tick(world: World) -> None:
    """The old owner appends nothing any more; the new one makes the tick that was due between."""
    world.git.commit({FILE: workflow(CRON)})
    old = world.own()
    world.turn(old)
    world.clock.advance(MINUTE_MS)
    new = world.own()
    with pytest.raises(FencedError):
        old.step(idle_ms=0)
    world.clock.advance(4_000)
    world.turn(new)
    assert len(world.of(e.RunPlanned)) == 1
    world.clock.advance(MINUTE_MS)
    world.turn(new)
    assert len(world.of(e.RunPlanned)) == 2


def test_an_outage_of_hours_is_not_made_up_for(world: World) -> None:
    """After it the next tick is the next one."""
    world.git.commit({FILE: workflow(CRON)})
    world.turn(world.own())
    world.clock.advance(180 * MINUTE_MS)
    again = world.own()
    world.turn(again)
    assert world.of(e.RunPlanned) == []
    world.clock.advance(MINUTE_MS)
    world.turn(again)
    assert len(world.of(e.RunPlanned)) == 1


def test_removing_the_entry_from_the_default_branch_ends_it(world: World) -> None:
    """The push that removes it is enough."""
    before = world.git.commit({FILE: workflow(CRON)})
    shell = world.own()
    world.turn(shell)
    sha = world.git.commit({FILE: workflow("push")})
    world.put(
        e.DeliveryReceived(
            event_id="pushed", repository=REPOSITORY, delivery_id="git:1", source="webhook",
            provider="git", event="push", ref="refs/heads/main", sha=sha, before=before,
        )
    )  # fmt: skip
    with world.mirrors.use(
        Origin(repository=REPOSITORY, clone_url=str(world.git.bare), default_branch="main")
    ) as mirror:
        index = world.planner.index(
            world.configured, mirror, cause="pushed", now_ms=world.clock.now_ms()
        )
    assert index is not None
    world.put(index)
    world.turn(shell)
    world.clock.advance(5 * MINUTE_MS)
    world.turn(shell)
    assert {run.event for run in world.of(e.RunPlanned)} == {"push"}
