"""Cron expressions: five POSIX fields, names allowed, in a time zone."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from schemas.late import dataclass
from schemas.workflow.errors import LanguageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

INTERVAL_MINUTES_MIN = 5
# 29 February can be eight years away (around a century that is no leap year).
_DAYS_AHEAD_MAX = 366 * 9
_NO_TIME = timedelta()
# From any minute to the end of an hour that is repeated after the present one.
_REPEATED_MINUTES_MAX = 180
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = 5
_SHORT = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class CronError(LanguageError):
    """The text is no five-field cron expression, or the time zone is unknown."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    first_name: int = 0


_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_DAY = _Field("day of the month", 1, 31)
_MONTH = _Field("month", 1, 12, _MONTHS, 1)
_WEEKDAY = _Field("day of the week", 0, 6, _WEEKDAYS)


@dataclass(frozen=True, slots=True)
class Cron:
    """The values of each field; with both days restricted either may match, as POSIX says."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def on(self, day: date) -> bool:
        """Whether the schedule has times on this day."""
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return in_month and in_week
        return in_month or in_week

    @property
    def interval_minutes_min(self) -> int:
        """The shortest time between two ticks of a day."""
        ticks = [hour * 60 + minute for hour in self.hours for minute in self.minutes]
        gaps = [after - before for before, after in pairwise(ticks)]
        if self.hours[0] == 0 and self.hours[-1] == _HOUR.high:
            gaps.append(ticks[0] + 24 * 60 - ticks[-1])
        return min(gaps, default=24 * 60)


@lru_cache(maxsize=1024)
def parse_cron(expression: str) -> Cron:
    """The fields of an expression; raises CronError with what is wrong."""
    texts = expression.split()
    if len(texts) != _FIELDS:
        if expression.strip().startswith("@"):
            fields = _SHORT.get(expression.strip().lower())
            instead = f": '{fields}'" if fields else ""
            raise CronError(
                f"'{expression.strip()}' is not supported; write the five fields{instead}"
            )
        raise CronError(
            "a schedule has five fields (minute, hour, day of the month, month, day of the week), "
            f"not {len(texts)}"
        )
    minute, hour, day, month, weekday = (
        _values(text, spec)
        for text, spec in zip(texts, (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY), strict=True)
    )
    return Cron(
        minutes=tuple(sorted(minute)),
        hours=tuple(sorted(hour)),
        days=day,
        months=month,
        weekdays=weekday,
        any_day=texts[2].startswith("*"),
        any_weekday=texts[4].startswith("*"),
    )


def _values(text: str, spec: _Field) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = 1
        if slash:
            if not (step_text.isascii() and step_text.isdigit() and int(step_text[:4]) > 0):
                raise CronError(f"'{part}' has no step after '/' ({spec.name})")
            step = int(step_text[:4])
            if step > spec.high:
                raise CronError(f"the step of '{part}' is above {spec.high} ({spec.name})")
        low, dash, high = span.partition("-")
        if span == "*":
            first, last = spec.low, spec.high
        else:
            first = _value(low, spec, part)
            last = _value(high, spec, part) if dash else (spec.high if slash else first)
        if first > last:
            raise CronError(f"the range '{span}' runs backwards ({spec.name})")
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _value(text: str, spec: _Field, part: str) -> int:
    lower = text.lower()
    if lower in spec.names:
        return spec.names.index(lower) + spec.first_name
    if not (text.isascii() and text.isdigit()):
        raise CronError(f"'{part}' is no value for the {spec.name}")
    number = int(text[:4])
    if not spec.low <= number <= spec.high:
        hint = "; Sunday is 0" if spec is _WEEKDAY else ""
        raise CronError(f"{text} is not from {spec.low} to {spec.high} ({spec.name}{hint})")
    return number


@lru_cache(maxsize=256)
def zone(name: str | None) -> tzinfo:
    """An IANA time zone by name; None is UTC. Raises CronError for an unknown one.

    The data is the installed package's, never the machine's: what is due is part of what the
    scheduler decides, and all machines with one version must decide the same.
    """
    if name in (None, "", "UTC"):
        return UTC
    if name not in _zone_names():
        raise CronError(f"'{name}' is not a known time zone; use a name like Europe/Berlin")
    with _zone_data("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(_zone_data("zones").read_text("ascii").split())


def _zone_data(*path: str) -> Traversable:
    from importlib.resources import files

    return files("tzdata").joinpath(*path)


def next_after(expression: str, now_ms: int, timezone: str | None = None) -> int | None:
    """The first tick after an instant, in milliseconds since 1970; None when there is none.

    A time that the clock skips (daylight saving) becomes the next one that exists; a time that
    occurs twice ticks once, at its first occurrence, unless the schedule is one for every hour: an
    hour that is repeated is an hour, too.
    """
    cron, where = parse_cron(expression), zone(timezone)
    now = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    # One day back: a tick that the clock moved on belongs to the day before a shift at midnight.
    day = now.astimezone(where).date() - timedelta(days=1)
    for _ in range(_DAYS_AHEAD_MAX):
        if cron.on(day):
            due = _first_on(cron, day, where, now)
            if due is not None:
                due = _repeated(cron, where, now, due) or due
                return round(due.timestamp() * 1000)
        day += timedelta(days=1)
    return None


def _first_on(cron: Cron, day: date, where: tzinfo, now: datetime) -> datetime | None:
    columns = len(cron.minutes)

    def due(place: int) -> datetime:
        hour, minute = cron.hours[place // columns], cron.minutes[place % columns]
        return _instant(datetime(day.year, day.month, day.day, hour, minute), where)  # noqa: DTZ001

    # Instants never go back as wall-clock times go on: the first one after now is found by halving.
    places = range(len(cron.hours) * columns)
    found = bisect_right(places, now, key=due)
    return due(found) if found < len(places) else None


def _repeated(cron: Cron, where: tzinfo, now: datetime, due: datetime) -> datetime | None:
    """The first tick before `due` in an hour that the clock repeats, for an hourly schedule."""
    here = now.astimezone(where)
    falls_back = (here.utcoffset() or _NO_TIME) > (due.astimezone(where).utcoffset() or _NO_TIME)
    if len(cron.hours) <= _HOUR.high or not (here.fold or falls_back):
        return None
    minute = now.replace(second=0, microsecond=0)
    for _ in range(_REPEATED_MINUTES_MAX):
        minute += timedelta(minutes=1)
        local = minute.astimezone(where)
        if minute >= due:
            break
        if local.fold and local.minute in cron.minutes and cron.on(local.date()):
            return minute
    return None


def _instant(local: datetime, where: tzinfo) -> datetime:
    """The instant of a wall-clock time, moved on past a gap to where the clock goes on."""
    due = local.replace(tzinfo=where).astimezone(UTC)
    if due.astimezone(where).replace(tzinfo=None) == local:
        return due
    # In a gap. The clock changes somewhere in the day around it: find the first instant after.
    low, high = due - timedelta(days=1), due + timedelta(days=1)
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(where).replace(tzinfo=None) < local:
            low = middle
        else:
            high = middle
    return (high + timedelta(milliseconds=500)).replace(microsecond=0)
