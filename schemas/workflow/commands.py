"""Workflow commands in the output of steps: `::name k=v::data` and `##[name k=v]data`.

Pure text to data; `command_processor` knows what the commands do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import field

from schemas.late import dataclass

# Escapes are undone in this order: the percent sign last, or `%250A` would become a line break.
_DATA = (("%0D", "\r"), ("%0A", "\n"), ("%25", "%"))
_PROPERTY = (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%"))
_BRACKETS = (("%3B", ";"), ("%0D", "\r"), ("%0A", "\n"), ("%5D", "]"), ("%25", "%"))

KNOWN_COMMANDS = frozenset(
    {
        "add-mask",
        "add-matcher",
        "add-path",
        "debug",
        "echo",
        "endgroup",
        "error",
        "group",
        "notice",
        "remove-matcher",
        "save-state",
        "set-env",
        "set-output",
        "stop-commands",
        "warning",
    }
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command; names of properties are in lower case, values unescaped and never empty."""

    name: str
    properties: dict[str, str] = field(default_factory=dict)
    data: str = ""


def parse_command(line: str, known: Collection[str] = KNOWN_COMMANDS) -> Command | None:
    """The command in a line of output, in the new or the old form; None when there is none."""
    if "::" not in line and "##[" not in line:
        return None
    return parse_colons(line, known) or parse_brackets(line, known)


def parse_colons(line: str, known: Collection[str] = KNOWN_COMMANDS) -> Command | None:
    """`::name k=v,k=v::data` at the start of a line, blanks aside."""
    text = line.lstrip()
    if not text.startswith("::"):
        return None
    end = text.find("::", 2)
    if end < 0:
        return None
    name, _, written = text[2:end].partition(" ")
    if name.lower() not in known:
        return None
    properties: dict[str, str] = {}
    for key, value in _pairs(written.strip(), ","):
        properties[key] = _unescaped(value, _PROPERTY)
    return Command(name.lower(), properties, _unescaped(text[end + 2 :], _DATA))


def parse_brackets(line: str, known: Collection[str] = KNOWN_COMMANDS) -> Command | None:
    """`##[name k=v;k=v]data` anywhere in a line."""
    start = line.find("##[")
    if start < 0:
        return None
    end = line.find("]", start)
    if end < 0:
        return None
    name, _, written = line[start + 3 : end].partition(" ")
    if name.lower() not in known:
        return None
    properties: dict[str, str] = {}
    for key, value in _pairs(written, ";"):
        properties[key] = _unescaped(value, _BRACKETS)
    return Command(name.lower(), properties, _unescaped(line[end + 1 :], _BRACKETS))


def _pairs(written: str, separator: str) -> Iterator[tuple[str, str]]:
    """The properties as written. Equals signs in a row count as one, as the runner splits them."""
    for item in written.split(separator):
        key, _, value = item.lstrip("=").partition("=")
        if key and (value := value.lstrip("=")):
            yield key.lower(), value


def _unescaped(text: str, escapes: tuple[tuple[str, str], ...]) -> str:
    if "%" in text:
        for written, character in escapes:
            text = text.replace(written, character)
    return text


def escape_data(text: str) -> str:
    """Text as the data of a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Text as a property value of a command."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")
