"""Commands and command files never raise anything but their own error."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from schemas.workflow.command_files import CommandFileError, parse_entries, parse_environment
from schemas.workflow.command_processor import CommandProcessor
from schemas.workflow.commands import escape_data, escape_property, parse_command
from schemas.workflow.cron import CronError, next_after, parse_cron

NEAR_COMMANDS = st.lists(
    st.sampled_from([*":#[]=,; %0DA25x\n", "::error ", "::stop-commands::", "##[", "<<EOF\n"]),
    max_size=20,
).map("".join)
VARIABLES = st.from_regex(r"[A-Z_]{1,8}", fullmatch=True)
DELIMITER = "ghadelimiter"


@given(lines=st.lists(st.one_of(st.text(), NEAR_COMMANDS), max_size=10))
def test_any_output_can_be_processed(lines: list[str]) -> None:
    """A line is a command or it is not."""
    processor = CommandProcessor(env={"ACTIONS_ALLOW_UNSECURE_COMMANDS": "true"})
    for line in lines:
        outcome = processor.process(line)
        assert outcome.processed == (outcome.command is not None)


@given(title=st.text(), data=st.text())
def test_what_is_escaped_comes_back(title: str, data: str) -> None:
    """For any text; equals signs before a property's value are lost, as on GitHub."""
    written = f"title={escape_property(title)},file=x"
    command = parse_command(f"::error {written}::{escape_data(data)}")

    assert command is not None
    assert command.properties.get("title", "") == title.lstrip("=")
    assert command.data == data


@given(text=st.one_of(st.text(), st.binary(), NEAR_COMMANDS))
def test_any_file_has_entries_or_is_refused(text: str | bytes) -> None:
    """With the format's own error."""
    for parse in (parse_entries, parse_environment):
        with contextlib.suppress(CommandFileError):
            parse(text)


@given(values=st.dictionaries(VARIABLES, st.text(st.characters(exclude_characters="\r"))))
def test_blocks_carry_any_text(values: dict[str, str]) -> None:
    """What is written between delimiters is read as it was."""
    text = "".join(f"{k}<<{DELIMITER}\n{v}\n{DELIMITER}\n" for k, v in values.items())

    assert parse_entries(text).values == values


@given(text=st.text(alphabet="0123456789*/,- jansu@", max_size=20))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    """With the schedule's own error."""
    with contextlib.suppress(CronError):
        parse_cron(text)


@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    now_ms=st.integers(0, 4_000_000_000_000),
    timezone=st.sampled_from([None, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_a_daily_schedule_ticks_once_a_day(
    minute: int, hour: int, now_ms: int, timezone: str | None
) -> None:
    """Never in the past, and the next tick is a day later, give or take a change of the clock."""
    expression = f"{minute} {hour} * * *"
    first = next_after(expression, now_ms, timezone)
    assert first is not None
    second = next_after(expression, first, timezone)
    assert second is not None

    assert now_ms < first <= now_ms + 26 * 3_600_000
    assert 22 * 3_600_000 <= second - first <= 26 * 3_600_000
