"""The fleet against a plain model of "silent for fifteen ticks", over generated histories."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from scheduler.liveness import (
    LOST_AFTER_TICKS,
    TICK_GAP_MS_MAX,
    BootKey,
    Forgotten,
    Input,
    Liveness,
    decide,
    evolve,
)
from schemas.events import RunnerLost
from schemas.streams import Heartbeat, Tick

RUNNERS, BOOTS = ("r1", "r2"), ("b1", "b2")

#: What happens next: ("beat", runner, boot, leaving), ("forgotten", ...), ("ticks", how many, ...)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("beat"), st.sampled_from(RUNNERS), st.sampled_from(BOOTS)),
        st.tuples(st.just("leave"), st.sampled_from(RUNNERS), st.sampled_from(BOOTS)),
        st.tuples(st.just("forgotten"), st.sampled_from(RUNNERS), st.sampled_from(BOOTS)),
        st.tuples(st.just("ticks"), st.integers(1, LOST_AFTER_TICKS + 2), st.just("")),
        st.tuples(st.just("restart"), st.just(0), st.just("")),
        st.tuples(st.just("outage"), st.integers(-5_000, 90_000), st.just("")),
    ),
    max_size=25,
)


def history_of(script: list[tuple[str, object, str]]) -> list[Input]:
    """Return the records that a script stands for."""
    records: list[Input] = []
    number, fleet, now_ms = 0, 0, 1_000_000
    for what, who, boot in script:
        if what == "ticks":
            for _ in range(int(str(who))):
                number, now_ms = number + 1, now_ms + 1_000
                records.append(Tick(number=number, fleet_id=f"f{fleet}", occurred_at=now_ms))
        elif what == "restart":
            number, fleet = 0, fleet + 1
        elif what == "outage":
            now_ms += int(str(who))
        elif what == "forgotten":
            records.append(Forgotten(runner_id=str(who), boot_id=boot))
        else:
            records.append(
                Heartbeat(runner_id=str(who), boot_id=boot, pool="default", labels=(), slots=1,
                          lane=0, welcomed=True, leaving=what == "leave")
            )  # fmt: skip
    return records


def lost_by_the_model(history: list[Input]) -> list[tuple[int, BootKey]]:
    """Return who is lost where, found by looking back from every tick over the whole history."""
    lost: list[tuple[int, BootKey]] = []
    for place, record in enumerate(history):
        if not isinstance(record, Tick):
            continue
        lost += [
            (place, key)
            for key in product(RUNNERS, BOOTS)
            if _silent_ticks(history[: place + 1], key) == LOST_AFTER_TICKS
        ]
    return lost


def _silent_ticks(history: list[Input], key: BootKey) -> int:
    """Count ticks without a gap since the boot's last heartbeat; -1 when it has none or left."""
    count, previous = -1, None
    for record in history:
        if isinstance(record, Tick):
            usual = (
                previous is not None
                and record.fleet_id == previous.fleet_id
                and record.number == previous.number + 1
                and 0 <= record.occurred_at - previous.occurred_at <= TICK_GAP_MS_MAX
            )
            previous = record
            if count >= 0:
                count = count + 1 if usual else 0
            if count > LOST_AFTER_TICKS:
                count = -1
        elif isinstance(record, Forgotten | Heartbeat) and (
            (record.runner_id, record.boot_id) == key
        ):
            over = isinstance(record, Forgotten) or record.leaving
            count = -1 if over else 0
    return count


@given(steps)
def test_exactly_the_silent_boots_are_lost(script: list[tuple[str, object, str]]) -> None:
    """RunnerLost(silent) comes at the fifteenth tick of silence without a gap, and only there."""
    history = history_of(script)
    state = Liveness()
    lost: list[tuple[int, BootKey]] = []
    for place, record in enumerate(history):
        lost += [
            (place, (str(fact.event.runner_id), str(fact.event.boot_id)))
            for fact in decide(state, record)
            if isinstance(fact.event, RunnerLost) and fact.event.reason == "silent"
        ]
        evolve(state, record)
    assert sorted(lost) == lost_by_the_model(history)


@given(steps, st.integers(0, 24))
def test_a_redelivered_record_says_nothing_new(
    script: list[tuple[str, object, str]], repeated: int
) -> None:
    """A record that is read again after a crash gives facts with ids that were given before."""
    history = history_of(script)
    state = Liveness()
    said: set[str] = set()
    for place, record in enumerate(history):
        said |= {fact.event.event_id for fact in decide(state, record)}
        if place == repeated:
            assert {fact.event.event_id for fact in decide(state, record)} <= said
        evolve(state, record)


@given(st.lists(st.integers(0, LOST_AFTER_TICKS - 1), max_size=12))
def test_a_boot_that_speaks_in_time_is_never_lost(pauses: list[int]) -> None:
    """Any rhythm with fewer than fifteen ticks between heartbeats keeps a boot alive."""
    script: list[tuple[str, object, str]] = [("ticks", 1, "")]
    for pause in pauses:
        script += [("beat", "r1", "b1"), *([("ticks", pause, "")] if pause else [])]
    state = Liveness()
    for record in history_of(script):
        assert not [f for f in decide(state, record) if isinstance(f.event, RunnerLost)]
        evolve(state, record)
