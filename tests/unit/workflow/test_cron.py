"""Cron expressions and their next ticks."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest

from schemas.workflow.cron import CronError, next_after, parse_cron, zone


def ticks(expression: str, start: str, count: int, timezone: str | None = None) -> list[str]:
    """The next ticks in UTC, to the minute."""
    now = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp() * 1000)
    found = []
    for _ in range(count):
        due = next_after(expression, now, timezone)
        assert due is not None
        now = due
        found.append(datetime.fromtimestamp(now / 1000, tz=UTC).strftime("%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        ("*/15 * * * *", "2026-01-01T00:00", ["01-01 00:15", "01-01 00:30"]),
        ("7/20 5 * * *", "2026-01-01T00:00", ["01-01 05:07", "01-01 05:27"]),
        ("0 0 1 * *", "2026-01-31T00:00", ["02-01 00:00", "03-01 00:00"]),
        ("30 4 * * MON-fri", "2026-01-02T05:00", ["01-05 04:30", "01-06 04:30"]),
        ("0 0 13 * 5", "2026-01-01T00:00", ["01-02 00:00", "01-09 00:00", "01-13 00:00"]),
        ("0 0 */2 * 1", "2026-01-01T00:00", ["01-05 00:00", "01-19 00:00"]),
        ("0 0 29 FEB *", "2026-01-01T00:00", ["02-29 00:00"]),
        ("59 23 31 12 *", "2026-12-31T23:59", ["12-31 23:59"]),
    ],
)
def test_the_next_ticks_are_these(expression: str, start: str, expected: list[str]) -> None:
    """Steps, ranges, names and both kinds of days; the present minute does not count."""
    assert ticks(expression, start, len(expected)) == expected


def test_a_time_that_the_clock_skips_moves_on() -> None:
    """At 2:30 in a spring night the schedule waits until 3:00."""
    found = ticks("30 2 * * *", "2026-03-07T12:00", 2, "America/New_York")

    assert found == ["03-08 07:00", "03-09 06:30"]


def test_a_time_that_comes_twice_ticks_once() -> None:
    """In the autumn night the first of the two counts."""
    found = ticks("30 2 * * *", "2026-10-24T12:00", 2, "Europe/Berlin")

    assert found == ["10-25 00:30", "10-26 01:30"]


def test_a_day_that_starts_late_keeps_its_tick() -> None:
    """Where midnight itself is skipped, the tick comes with the first minute of the day."""
    assert ticks("0 0 * * *", "2025-04-24T12:00", 1, "Africa/Cairo") == ["04-24 22:00"]


def test_a_date_that_never_comes_has_no_tick() -> None:
    """30 February is allowed to be written."""
    assert next_after("0 0 30 2 *", 0) is None


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("* * * *", "five fields"),
        ("@daily", "write the five fields"),
        ("60 * * * *", "60 is not from 0 to 59"),
        ("* * * * 7", "Sunday is 0"),
        ("* * 0 * *", "0 is not from 1 to 31"),
        ("5-1 * * * *", "runs backwards"),
        ("*/0 * * * *", "no step"),
        ("*/x * * * *", "no step"),
        ("*/60 * * * *", "above 59"),
        ("* * * * 1-5/7", "above 6"),
        ("a * * * *", "no value for the minute"),
        ("* * * sun *", "no value for the month"),
        ("1,,2 * * * *", "no value"),
    ],
)
def test_a_bad_expression_says_what_is_wrong(expression: str, message: str) -> None:
    """The field and the part are named."""
    with pytest.raises(CronError, match=message):
        parse_cron(expression)


def test_an_unknown_time_zone_is_refused() -> None:
    """Also one that looks like a path."""
    for name in ("Mars/Olympus", "../etc/passwd", "a" * 300):
        with pytest.raises(CronError, match="not a known time zone"):
            next_after("* * * * *", 0, name)


@pytest.mark.parametrize(
    ("expression", "minutes"), [("*/5 * * * *", 5), ("* 3 * * *", 1), ("0,58 * * * *", 2)]
)
def test_the_shortest_interval_is_known(expression: str, minutes: int) -> None:
    """Over the end of an hour as well."""
    assert parse_cron(expression).interval_minutes_min == minutes


@pytest.mark.parametrize("name", ["../zones", "/etc/localtime", "Europe", "europe/berlin", "zones"])
def test_a_zone_is_a_name_and_never_a_path(name: str) -> None:
    """Only what the zone data lists is opened."""
    with pytest.raises(CronError, match="not a known time zone"):
        zone(name)


def test_zones_come_from_the_locked_package_and_not_from_the_machine(
    tmp_path: Path,
) -> None:
    """A machine whose files say that Berlin is UTC ticks with the others."""
    (tmp_path / "Europe").mkdir()
    utc = files("tzdata").joinpath("zoneinfo", "UTC").read_bytes()
    (tmp_path / "Europe" / "Berlin").write_bytes(utc)
    zoneinfo.reset_tzpath([tmp_path])
    zoneinfo.ZoneInfo.clear_cache()
    zone.cache_clear()
    try:
        midsummer = datetime(2026, 6, 21, tzinfo=UTC)
        assert not midsummer.astimezone(zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset()
        assert midsummer.astimezone(zone("Europe/Berlin")).utcoffset() == timedelta(hours=2)
    finally:
        zoneinfo.reset_tzpath()
        zoneinfo.ZoneInfo.clear_cache()
        zone.cache_clear()


def test_every_listed_zone_can_be_read() -> None:
    """What the list names is there; no zone and "UTC" need no file."""
    names = files("tzdata").joinpath("zones").read_text("ascii").split()
    assert len(names) > 400
    for name in names:
        assert zone(name).utcoffset(datetime(2026, 1, 1)) is not None  # noqa: DTZ001
    assert zone(None) is zone("UTC") is UTC
