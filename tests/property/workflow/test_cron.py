"""The next tick agrees with looking at every minute, also where clocks are moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.workflow.cron import next_after
from schemas.workflow.cron import zone as zone_of

MINUTE = timedelta(minutes=1)
DAYS = 2
#: Days on which some clock is moved: by an hour at 2 and at midnight, and by half an hour.
ZONES = {
    "UTC": ["2026-02-28"],
    "Asia/Kolkata": ["2026-12-31"],
    "Europe/Berlin": ["2026-03-29", "2026-10-25"],
    "America/New_York": ["2026-03-08", "2026-11-01"],
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],
    "Africa/Cairo": ["2026-04-24", "2026-10-30"],
}


@dataclass(frozen=True)
class Field:
    """A field's text, and the values that it stands for."""

    text: str
    values: frozenset[int]


def fields(low: int, high: int) -> st.SearchStrategy[Field]:
    """Every form that a field can have."""
    numbers = st.integers(low, high)
    whole = frozenset(range(low, high + 1))
    return st.one_of(
        st.just(Field("*", whole)),
        st.lists(numbers, min_size=1, max_size=4).map(
            lambda found: Field(",".join(map(str, found)), frozenset(found))
        ),
        st.integers(1, high).map(
            lambda step: Field(f"*/{step}", frozenset(range(low, high + 1, step)))
        ),
        st.tuples(numbers, numbers, st.integers(1, min(9, high))).map(lambda found: _span(*found)),
    )


def _span(one: int, other: int, step: int) -> Field:
    first, last = sorted((one, other))
    return Field(f"{first}-{last}/{step}", frozenset(range(first, last + 1, step)))


@dataclass(frozen=True)
class Schedule:
    """Five fields."""

    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    @property
    def text(self) -> str:
        """The expression."""
        found = (self.minute, self.hour, self.day, self.month, self.weekday)
        return " ".join(field.text for field in found)

    def has(self, local: datetime) -> bool:
        """Tell whether a wall clock's minute is one of it."""
        in_month = local.day in self.day.values
        in_week = local.isoweekday() % 7 in self.weekday.values
        either = not self.day.text.startswith("*") and not self.weekday.text.startswith("*")
        return (
            local.minute in self.minute.values
            and local.hour in self.hour.values
            and local.month in self.month.values
            and (in_month or in_week if either else in_month and in_week)
        )


SCHEDULES = st.builds(
    Schedule, fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 6)
)
PLACES = st.sampled_from([(zone, day) for zone, days in ZONES.items() for day in days])


def every_minute(schedule: Schedule, zone: str, start: datetime) -> Iterator[datetime]:
    """Look at each minute of some days: what the clock shows, and what it has just skipped."""
    where = zone_of(zone)
    hourly = len(schedule.hour.values) == 24
    shown = start.astimezone(where).replace(tzinfo=None)
    for count in range(1, DAYS * 24 * 60):
        now = start + count * MINUTE
        local = now.astimezone(where)
        expected, shown = shown + MINUTE, local.replace(tzinfo=None, fold=0)
        skipped = range(max(0, round((shown - expected) / MINUTE)))
        if any(schedule.has(expected + n * MINUTE) for n in skipped) or (
            schedule.has(shown) and (hourly or not local.fold)
        ):
            yield now


def schedule_of(*values: str) -> Schedule:
    """A schedule of single values and stars."""
    limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    return Schedule(
        *(
            Field(text, frozenset(range(low, high + 1)) if text == "*" else frozenset({int(text)}))
            for text, (low, high) in zip(values, limits, strict=True)
        )
    )


@settings(max_examples=80, deadline=None)
@given(schedule=SCHEDULES, place=PLACES, minutes=st.integers(-26 * 60, 26 * 60))
@example(schedule_of("30", "2", "*", "*", "*"), ("Europe/Berlin", "2026-03-29"), -600)
@example(schedule_of("30", "2", "*", "*", "*"), ("Europe/Berlin", "2026-10-25"), -600)
@example(schedule_of("30", "*", "*", "*", "*"), ("Europe/Berlin", "2026-10-25"), 30)
@example(schedule_of("*", "*", "*", "*", "*"), ("Australia/Lord_Howe", "2026-04-05"), -600)
@example(schedule_of("0", "0", "*", "*", "*"), ("Africa/Cairo", "2026-04-24"), -180)
def test_the_next_tick_is_the_first_that_looking_at_every_minute_finds(
    schedule: Schedule, place: tuple[str, str], minutes: int
) -> None:
    """Also from tick to tick, which is how they are armed."""
    zone, day = place
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) + minutes * MINUTE
    now = start
    for _, expected in zip(range(20), every_minute(schedule, zone, start), strict=False):
        due = next_after(schedule.text, round(now.timestamp() * 1000), zone)
        assert due is not None
        assert datetime.fromtimestamp(due / 1000, tz=UTC) == expected
        now = expected


@settings(max_examples=60, deadline=None)
@given(schedule=SCHEDULES, place=PLACES, ms=st.integers(0, 59_999))
def test_a_minute_that_has_begun_has_ticked(
    schedule: Schedule, place: tuple[str, str], ms: int
) -> None:
    """Whatever the clock's second, the next tick is the same; and it is a whole minute."""
    zone, day = place
    start = round(datetime.fromisoformat(day).timestamp() * 1000)
    due = next_after(schedule.text, start, zone)

    assert next_after(schedule.text, start + ms, zone) == due
    assert due is None or due % 60_000 == 0
