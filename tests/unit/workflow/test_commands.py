"""Workflow commands and command files beyond the shared cases."""

from __future__ import annotations

import pytest

from schemas.workflow.command_files import (
    BLOCKED_VARIABLES,
    CommandFileError,
    parse_entries,
    parse_environment,
    parse_paths,
    prepended,
)
from schemas.workflow.command_processor import CommandProcessor, annotation_properties
from schemas.workflow.commands import Command, escape_data, escape_property, parse_command


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  ::debug::hi", Command("debug", {}, "hi")),
        (
            "::Error File=a%2Cb,line=1::x%0Ay",
            Command("error", {"file": "a,b", "line": "1"}, "x\ny"),
        ),
        ("noise ##[group]name", Command("group", {}, "name")),
        ("::error line=,file=a::x", Command("error", {"file": "a"}, "x")),
        ("::group::a::b", Command("group", {}, "a::b")),
        (
            "::error file==a,=line=2,col=,title=b=c=::x",
            Command("error", {"file": "a", "line": "2", "title": "b=c="}, "x"),
        ),
        ("##[error file==a;=line=2;title==]x", Command("error", {"file": "a", "line": "2"}, "x")),
        ("text ::debug::hi", None),
        ("::unknown::hi", None),
        ("::debug", None),
        ("", None),
    ],
)
def test_a_line_is_this_command(line: str, expected: Command | None) -> None:
    """The new form starts a line, the old one may stand anywhere."""
    assert parse_command(line) == expected


def test_escaping_and_parsing_are_inverse() -> None:
    """What a tool escapes arrives as it was."""
    text = "100%\r\n%0A a:b,c"
    line = f"::notice title={escape_property(text)}::{escape_data(text)}"

    assert parse_command(line) == Command("notice", {"title": text}, text)


def test_nothing_is_a_command_while_commands_are_stopped() -> None:
    """Only the token ends it, and the token is masked."""
    processor = CommandProcessor()
    token = "a-long-token"
    lines = [
        f"::stop-commands::{token}",
        "::add-mask::x",
        "::endgroup::",
        f"::{token}::",
        "::add-mask::y",
    ]

    assert [processor.process(line).processed for line in lines] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert processor.masks == [token, "y"]


@pytest.mark.parametrize("token", ["", "  ", "debug", "PAUSE-logging", "Add-Mask"])
def test_a_guessable_stop_token_fails_the_step(token: str) -> None:
    """Otherwise any output could end it."""
    processor = CommandProcessor()

    assert processor.process(f"::stop-commands::{token}").error
    assert processor.stop_token is None


def test_masks_cover_each_line() -> None:
    """Output comes line by line, so each line of a secret is one."""
    processor = CommandProcessor()
    processor.process("::add-mask::one%0Atwo%0A%0A")

    assert processor.masks == ["one\ntwo\n\n", "one", "two"]


def test_outputs_and_state_need_a_name() -> None:
    """The value is the data, empty ones included."""
    processor = CommandProcessor()
    processor.process("::set-output name=a::1")
    processor.process("::save-state name=b::")

    assert (processor.outputs, processor.state) == ({"a": "1"}, {"b": ""})
    assert "name" in (processor.process("::set-output::1").error or "")


def test_unsecure_commands_need_the_switch() -> None:
    """set-env and add-path could be printed by anything that a step runs."""
    closed = CommandProcessor()
    opened = CommandProcessor(env={"ACTIONS_ALLOW_UNSECURE_COMMANDS": "TRUE"})

    assert "GITHUB_ENV" in (closed.process("::set-env name=a::1").error or "")
    assert "GITHUB_PATH" in (closed.process("::add-path::/x").error or "")
    assert opened.process("::set-env name=a::1").error is None
    assert opened.process("::set-env name=node_options::1").error is None
    assert len(opened.issues) == 1
    assert opened.process("::add-path::/x").error is None
    assert (opened.variables, opened.path) == ({"a": "1"}, ("/x",))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"file": "a", "line": "2", "unknown": "x"}, {"file": "a", "line": "2"}),
        ({"col": "2"}, {}),
        ({"line": "1", "endline": "2", "col": "1"}, {"line": "1", "endLine": "2"}),
        ({"line": "3", "endcolumn": "4"}, {"line": "3", "col": "4", "endColumn": "4"}),
    ],
)
def test_an_annotation_keeps_what_makes_sense(
    given: dict[str, str], expected: dict[str, str]
) -> None:
    """Columns need one line."""
    assert annotation_properties(given) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=x", "Name must not be empty"),
        ("x", "Invalid format 'x'"),
        ("<<EOF\nx\nEOF", "delimiter must not be empty"),
        ("a<<\nx\n", "delimiter must not be empty"),
        ("a<<EOF\nx\n", "Matching delimiter not found 'EOF'"),
        ("a<<EOF\nx", "EOF marker missing new line"),
        ("\n".join(f"v{n}=1" for n in range(10_001)), "more than 10000 entries"),
        ("a=" + "x" * (5 << 20), "bytes"),
    ],
)
def test_a_malformed_file_is_refused(text: str, message: str) -> None:
    """The step fails with the line or the delimiter in the message."""
    with pytest.raises(CommandFileError, match=message):
        parse_entries(text)


def test_a_file_has_values_and_blocks() -> None:
    """The last value of a name wins; bytes that are no UTF-8 do not stop anything."""
    text = b"a=1\nb<<E=F\nx=1\n\ny\nE=F\na=2\nc=\xff\n"

    assert parse_entries(text).values == {"a": "2", "b": "x=1\n\ny", "c": "\ufffd"}
    assert parse_entries("a=1\r\n").values == {"a": "1\r"}


def test_a_file_in_utf_16_is_read_as_such() -> None:
    """Windows PowerShell writes it so, with a byte order mark."""
    assert parse_entries("a=1\nb=ä\n".encode("utf-16")).values == {"a": "1", "b": "ä"}


def test_a_folder_a_line_however_lines_end() -> None:
    """Also with a carriage return alone; empty lines are nothing."""
    assert parse_paths("/a\r\n\n/b\r/c d\n") == ("/a", "/b", "/c d")


def test_blocked_variables_are_left_out_with_a_word() -> None:
    """In any spelling."""
    name = next(iter(BLOCKED_VARIABLES)).title()
    entries = parse_environment(f"{name}=x\nb=1")

    assert entries.values == {"b": "1"}
    assert len(entries.issues) == 1


def test_the_folder_added_last_comes_first() -> None:
    """A folder that is there already moves to the front."""
    added = parse_paths(b"/a\n\n/b\r\n")

    assert added == ("/a", "/b")
    assert prepended(("/usr", "/a"), added) == ("/b", "/a", "/usr")
