"""What steps write to GITHUB_ENV, GITHUB_OUTPUT, GITHUB_STATE, GITHUB_PATH and the summary."""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import field

from schemas.late import dataclass
from schemas.workflow.errors import LanguageError

FILE_BYTES_MAX = 4 << 20
SUMMARY_BYTES_MAX = 1 << 20
ENTRIES_MAX = 10_000
_LINE_ENDS = re.compile(r"[\r\n]+")
# What would let a step change how later steps of others start.
BLOCKED_VARIABLES = frozenset({"NODE_OPTIONS"})


class CommandFileError(LanguageError):
    """The file is not in the format; the step that wrote it fails."""


@dataclass(frozen=True, slots=True)
class Entries:
    """The values of a file in order (a later one wins), and what was refused, in words."""

    values: dict[str, str] = field(default_factory=dict)
    issues: tuple[str, ...] = ()


def parse_entries(text: str | bytes) -> Entries:
    """`NAME=value` lines and `NAME<<DELIMITER` blocks. Raises CommandFileError.

    Lines end with a line feed; a carriage return before it belongs to the value, as it does on
    GitHub's Linux runners.
    """
    content = _decoded(text)
    values: dict[str, str] = {}
    position = count = 0
    while position < len(content):
        line, position, _ = _line(content, position)
        if not line:
            continue
        count += 1
        if count > ENTRIES_MAX:
            raise CommandFileError(f"more than {ENTRIES_MAX} entries")
        equals, block = line.find("="), line.find("<<")
        if block >= 0 and (equals < 0 or block < equals):
            name, delimiter = line[:block], line[block + 2 :]
            if not name or not delimiter:
                raise CommandFileError(
                    f"Invalid format '{line}'. Name must not be empty and delimiter must not be "
                    "empty"
                )
            values[name], position = _block(content, position, delimiter)
        elif equals >= 0:
            if equals == 0:
                raise CommandFileError(f"Invalid format '{line}'. Name must not be empty")
            values[line[:equals]] = line[equals + 1 :]
        else:
            raise CommandFileError(f"Invalid format '{line}'")
    return Entries(values)


def parse_environment(text: str | bytes) -> Entries:
    """As `parse_entries`, for GITHUB_ENV: variables that no step may set are left out."""
    entries = parse_entries(text)
    blocked = [name for name in entries.values if name.upper() in BLOCKED_VARIABLES]
    if not blocked:
        return entries
    return Entries(
        {name: value for name, value in entries.values.items() if name not in blocked},
        tuple(
            f"Can't store {name} output parameter using '$GITHUB_ENV' command." for name in blocked
        ),
    )


def parse_paths(text: str | bytes) -> tuple[str, ...]:
    """The folders of a GITHUB_PATH file, in the order in which they were added."""
    return tuple(line for line in _LINE_ENDS.split(_decoded(text)) if line)


def prepended(search_path: tuple[str, ...], added: tuple[str, ...]) -> tuple[str, ...]:
    """PATH entries with the added ones before them: the last added comes first, none twice."""
    result = list(search_path)
    for folder in added:
        if folder in result:
            result.remove(folder)
        result.insert(0, folder)
    return tuple(result)


def _decoded(text: str | bytes) -> str:
    if len(text) > FILE_BYTES_MAX:
        raise CommandFileError(f"the file has more than {FILE_BYTES_MAX} bytes")
    if isinstance(text, bytes):
        text = text.decode(_encoding(text), "replace")
    return text.removeprefix("\ufeff")


def _encoding(text: bytes) -> str:
    """UTF-8, unless the first bytes say UTF-16, as Windows PowerShell writes."""
    return "utf-16" if text.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8"


def _line(content: str, position: int) -> tuple[str, int, bool]:
    """A line without its end, where the next one starts, and whether there was an end."""
    end = content.find("\n", position)
    if end < 0:
        return content[position:], len(content), False
    return content[position:end], end + 1, True


def _block(content: str, position: int, delimiter: str) -> tuple[str, int]:
    start = end = position
    while True:
        if position >= len(content):
            raise CommandFileError(f"Invalid value. Matching delimiter not found '{delimiter}'")
        before = position
        line, position, ended = _line(content, position)
        if line == delimiter:
            break
        if not ended:
            raise CommandFileError("Invalid value. EOF marker missing new line.")
        end = before + len(line)
    return content[start:end], position
