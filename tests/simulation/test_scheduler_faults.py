"""Schedulers that crash, double and lose their changelog, by seed, on the in-memory log.

Inputs arrive at random; owners come and go at random moments, commits fail before or after they
took effect, and now and then the whole changelog is gone. What is in the log at the end must be
what one owner without any fault would have decided.
"""

from __future__ import annotations

import os

import pytest

from infra.log import MemoryLog
from scheduler.core.cell import Cell
from scheduler.core.outputs import Order
from schemas import codec
from schemas import events as e
from schemas.events import Event
from schemas.lanes import Assignment, LaneRecord
from schemas.topics import EVENTS, lane_topic
from schemas.workflow.plan_json import plan_to_json
from tests.support.faults import FaultyWorld
from tests.support.workflows import PATH, compiled

REPOSITORY = "sim/repo"
SEEDS = int(os.environ.get("TAILRACE_SEEDS", "240"))
START = int(os.environ.get("TAILRACE_START", "0"))
BLOCKS = 4
WORKFLOW = compiled(
    """
    on: push
    jobs:
      a: {runs-on: linux, outputs: {x: '1'}, steps: [{run: 'true'}]}
      m:
        needs: a
        runs-on: linux
        strategy: {matrix: {n: [1, 2]}}
        steps: [{run: 'true'}]
      z: {needs: m, if: always(), runs-on: linux, steps: [{run: 'true'}]}
    """
)


class World(FaultyWorld):
    """One cell's log with its owners and a runner that answers what it is ordered."""

    def __init__(self, seed: int) -> None:
        """Begin with a repository and a runner."""
        super().__init__(seed)
        self.answered: set[tuple[str, int]] = set()
        self.deliveries = 0
        self.put(
            e.RepositoryConfigured(
                event_id="configured", repository=REPOSITORY, provider="git", clone_url="/r"
            ),
            e.RunnerJoined(
                event_id="joined", runner_id="r1", boot_id="b1", pool="default",
                labels=("linux",), slots=2, lane=0,
            ),
        )  # fmt: skip

    def push(self) -> None:
        """A delivery and its answer, the one now and then twice."""
        self.deliveries += 1
        delivery = f"d{self.deliveries}"
        received = e.DeliveryReceived(
            event_id=f"received-{delivery}", occurred_at=1, repository=REPOSITORY,
            delivery_id=delivery, source="webhook", provider="git", event="push",
        )  # fmt: skip
        outcome = e.WorkflowOutcome(path=PATH, outcome="planned", plan_json=plan_to_json(WORKFLOW))
        planned = e.DeliveryPlanned(
            event_id=f"planned-{delivery}", repository=REPOSITORY, delivery_id=delivery,
            workflows=(outcome,),
        )  # fmt: skip
        self.put(*([received] * self.chance.choice((1, 1, 2))), planned)

    def answer(self) -> None:
        """The runner reports on one of its assignments, the same report now and then twice."""
        orders = [o for o in self.orders() if (o.job_id or "", o.attempt or 0) not in self.answered]
        if not orders:
            return
        order = self.chance.choice(orders)
        self.answered.add((order.job_id or "", order.attempt or 0))
        common = {
            "repository": order.repository, "run_id": order.run_id, "job_id": order.job_id,
            "attempt": order.attempt, "runner_id": "r1", "boot_id": "b1",
            "delivery_id": order.delivery_id,
        }  # fmt: skip
        name = f"{order.job_id}@{order.attempt}"
        conclusion = self.chance.choice(("success", "success", "failure"))
        self.put(
            e.JobStarted(event_id=f"started-{name}", **common),  # type: ignore[arg-type]
            *[e.JobFinished(event_id=f"finished-{name}", conclusion=conclusion, **common)]  # type: ignore[arg-type]
            * self.chance.choice((1, 1, 2)),
        )

    def orders(self) -> list[Assignment]:
        """Return every assignment on the lane."""
        records = self.log.records[(lane_topic("default"), 0)]
        found: list[LaneRecord] = [codec.LANES.decode(r.value or b"") for r in records]
        return [order for order in found if isinstance(order, Assignment)]

    def settle(self) -> None:
        """Faults stop: one owner, and the runner answers everything."""
        self.log.faults = False
        self.owners.clear()
        self.own()
        [owner] = self.owners
        for _ in range(10_000):
            self.answer()
            owner.step(idle_ms=0)
            done = owner.next_offset >= len(self.log.records[(EVENTS, 0)])
            if done and not len(owner.cell.state.runs):
                return
        raise AssertionError("a run is stuck after the faults have stopped")


def play(seed: int) -> World:
    """Let a seed's world happen."""
    world = World(seed)
    actions = [world.step] * 12 + [world.answer] * 6 + [world.push] * 2 + [world.own, world.forget]
    for _ in range(world.chance.randint(30, 120)):
        world.chance.choice(actions)()
        world.clock.advance(world.chance.randint(0, 50))
    world.settle()
    return world


def judge(world: World) -> None:
    """Decide about the log's inputs again, without any fault, and compare."""
    twin = Cell()
    orders: list[LaneRecord] = []
    expected, recorded = decided_twice(world.log, twin, orders)
    assert recorded == expected
    lane = [codec.LANES.decode(r.value or b"") for r in world.log.records[("pool.default", 0)]]
    # an input that leads to nothing but an order (a welcome) leaves no decision that names it, so
    # an owner without a changelog gives the order again: the same one, which runners ignore
    assert _first_of_each(lane) == _first_of_each(orders)
    assignments = [order.order_id for order in lane if isinstance(order, Assignment)]
    assert len(assignments) == len(set(assignments))
    assert not len(twin.state.runs)


def decided_twice(
    log: MemoryLog, twin: Cell | None = None, orders: list[LaneRecord] | None = None
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return what `twin` decides about a log's inputs, and what is recorded of that.

    `orders` gets what `twin` orders.
    """
    twin = twin or Cell()
    expected: list[Event] = []
    recorded: list[Event] = []
    for record in log.records[(EVENTS, 0)]:
        event = codec.EVENTS.decode(record.value or b"")
        if record.header("decider"):
            if not isinstance(event, e.SchedulerStarted):
                recorded.append(event)
            continue
        for output in twin.handle(event, record.offset):
            if not isinstance(output, Order):
                expected.append(output)
            elif orders is not None:
                orders.append(output.record)
    return [_without_time(event) for event in expected], [_without_time(r) for r in recorded]


def _first_of_each(orders: list[LaneRecord]) -> list[LaneRecord]:
    return list({(type(order).__name__, order.order_id): order for order in orders}.values())


def _without_time(event: Event) -> dict[str, object]:
    import dataclasses

    return {**dataclasses.asdict(event), "occurred_at": 0, "kind": type(event).__name__}


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_fault_of_owners_changes_what_is_decided(block: int) -> None:
    """Crashes, unknown commits, zombies and lost changelogs leave the decisions of a calm world."""
    for seed in range(START + block, START + SEEDS, BLOCKS):
        try:
            judge(play(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
