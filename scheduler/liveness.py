"""Who is alive: heartbeats and ticks to facts, the pure half of the fleet.

Silence is counted in ticks that lie in the log between heartbeats, never by a clock, so the
answer is the same however late the records are read. One `Liveness` is one partition's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from schemas.codec import event_id
from schemas.events import Event, RunnerJoined, RunnerLost
from schemas.late import dataclass
from schemas.streams import Heartbeat, HeartbeatRecord, Tick

#: A boot is lost when this many ticks followed its last heartbeat; a runner sends one in three.
LOST_AFTER_TICKS = 15
#: Ticks come once a second. When one is later than this, heartbeats may be late as well.
TICK_GAP_MS_MAX = 3_000

BootKey = tuple[str, str]


@dataclass(slots=True)
class Boot:
    """A boot that counts as alive; `heard_at` is the number of ticks read when it was heard."""

    pool: str
    heard_at: int


@dataclass(slots=True)
class Liveness:
    """The boots that live, by (runner_id, boot_id), and the ticks read so far.

    `last` is the last tick, of this fleet or of one before it.
    """

    boots: dict[BootKey, Boot] = field(default_factory=dict)
    ticks: int = 0
    last: Tick | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """An event for the cell of `pool`."""

    pool: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """The record that stands for "this boot is over" on `heartbeats`: a key without a value."""

    runner_id: str
    boot_id: str


Input = HeartbeatRecord | Forgotten


def decide(state: Liveness, record: Input) -> tuple[Fact, ...]:
    """Return what a record means beside what is known; changes nothing."""
    match record:
        case Heartbeat(leaving=True):
            return (_lost(record.runner_id, record.boot_id, record.pool, "left", 0, record),)
        case Heartbeat():
            known = (record.runner_id, record.boot_id) in state.boots
            return () if known and record.welcomed else (_joined(record),)
        case Tick() if not _is_gap(state.last, record):
            return tuple(
                _lost(runner_id, boot_id, boot.pool, "silent", LOST_AFTER_TICKS, record)
                for (runner_id, boot_id), boot in _silent(state)
            )
        case _:
            return ()


def evolve(state: Liveness, record: Input) -> None:
    """Fold a record into the state, in place."""
    match record:
        case Heartbeat(leaving=True) | Forgotten():
            state.boots.pop((record.runner_id, record.boot_id), None)
        case Heartbeat():
            key = (record.runner_id, record.boot_id)
            state.boots[key] = Boot(record.pool, state.ticks)
        case Tick():
            _evolve_tick(state, record)
        case _:
            pass


def _evolve_tick(state: Liveness, tick: Tick) -> None:
    if _is_gap(state.last, tick):
        for boot in state.boots.values():
            boot.heard_at = state.ticks + 1
    else:
        for key, _ in list(_silent(state)):
            del state.boots[key]
    state.ticks += 1
    state.last = tick


def _silent(state: Liveness) -> Iterable[tuple[BootKey, Boot]]:
    """Yield the boots for which the next tick is the last straw, in order of joining."""
    latest = state.ticks + 1 - LOST_AFTER_TICKS
    return ((key, boot) for key, boot in state.boots.items() if boot.heard_at <= latest)


def _is_gap(last: Tick | None, tick: Tick) -> bool:
    """Say whether ticks are missing before this one: then nobody's silence proves anything.

    The first tick of a fleet, one that follows a failed append, one that was held up with the
    heartbeats by an outage, and one of a fleet whose clock was set back.
    """
    if last is None or tick.fleet_id != last.fleet_id or tick.number != last.number + 1:
        return True
    return not 0 <= tick.occurred_at - last.occurred_at <= TICK_GAP_MS_MAX


def _joined(heartbeat: Heartbeat) -> Fact:
    event = RunnerJoined(
        event_id=event_id("RunnerJoined", heartbeat.runner_id, heartbeat.boot_id),
        occurred_at=heartbeat.occurred_at,
        runner_id=heartbeat.runner_id,
        boot_id=heartbeat.boot_id,
        pool=heartbeat.pool,
        labels=heartbeat.labels,
        slots=heartbeat.slots,
        lane=heartbeat.lane,
        name=heartbeat.name,
        isolation=heartbeat.isolation,
        version=heartbeat.version,
        hostname=heartbeat.hostname,
        running=heartbeat.running,
        public_key=heartbeat.public_key,
        capabilities=heartbeat.capabilities,
    )
    return Fact(pool=heartbeat.pool, event=event)


def _lost(
    runner_id: str, boot_id: str, pool: str, reason: str, ticks: int, cause: HeartbeatRecord
) -> Fact:
    event = RunnerLost(
        event_id=event_id("RunnerLost", runner_id, boot_id),
        occurred_at=cause.occurred_at,
        runner_id=runner_id,
        boot_id=boot_id,
        reason=reason,
        silent_ticks=ticks,
    )
    return Fact(pool=pool, event=event)
