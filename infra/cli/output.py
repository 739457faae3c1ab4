"""What the command line prints: tables, times, colours; the only place that formats for people.

Colours and the like appear only on a terminal, and never when NO_COLOR is set.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 160))}

_STYLES: dict[str, dict[str, Any]] = {
    "success": {"fg": "green"},
    "failure": {"fg": "red", "bold": True},
    "timed_out": {"fg": "red", "bold": True},
    "rejected": {"fg": "red", "bold": True},
    "cancelled": {"fg": "magenta"},
    "skipped": {"dim": True},
    "running": {"fg": "yellow"},
    "assigned": {"fg": "yellow"},
    "queued": {"fg": "cyan"},
    "waiting": {"fg": "cyan"},
}
_JOB_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_red", "bright_cyan",
                "bright_yellow", "bright_green", "bright_magenta")  # fmt: skip


def use_colours() -> bool:
    """Say whether standard output takes colours."""
    return not os.environ.get("NO_COLOR") and sys.stdout.isatty()


def style(text: str, **how: Any) -> str:
    """Return the text in a style, or as it is where colours are off."""
    return click.style(text, **how) if use_colours() else text


def job_style(text: str, number: int) -> str:
    """Return a job's name in a colour of its own."""
    return style(text, fg=_JOB_COLOURS[number % len(_JOB_COLOURS)])


def state(text: str) -> str:
    """Return a status or conclusion in its colour."""
    return style(text, **_STYLES.get(text, {}))


def state_of(item: dict[str, Any]) -> str:
    """Return what a run or job is, in one word and its colour."""
    return state(str(item.get("conclusion") or item.get("status") or "-"))


def clean(text: object) -> str:
    """Return a text of foreign origin (a commit's message) on one line, without control codes."""
    return str(text).translate(_CONTROL)


def first_line(text: object, width: int) -> str:
    """Return the first line of a foreign text, at most `width` characters of it."""
    line = clean(str(text).strip().partition("\n")[0].strip())
    return line if len(line) <= width else line[: width - 1] + "…"


def print_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column; the last one takes what is left of the line."""

    title: str
    right: bool = False


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print rows in aligned columns, or say what an empty table means."""
    found = [[str(cell) for cell in row] for row in rows]
    if not found:
        click.echo(empty)
        return
    head = [column.title for column in columns]
    widths = [max(len(_plain(row[i])) for row in [head, *found]) for i in range(len(columns))]
    click.echo(style(_line(columns, widths, head), bold=True))
    for row in found:
        click.echo(_line(columns, widths, row))


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    padded = []
    for column, width, cell in zip(columns, widths, cells, strict=True):
        space = " " * (width - len(_plain(cell)))
        padded.append(space + cell if column.right else cell + space)
    return "  ".join(padded).rstrip()


def _plain(text: str) -> str:
    return _ANSI.sub("", text)


# --------------------------------------------------------------------------- times


def instant(at_ms: int | None) -> str:
    """Return an instant in local time, to the second."""
    if not at_ms:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock(at_ms: int | None) -> str:
    """Return an instant's local time of day, to the millisecond."""
    if not at_ms:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]


def span(duration_ms: int | None) -> str:
    """Return a duration: 0.4s, 12s, 3m05s, 2h07m, 4d03h."""
    if duration_ms is None:
        return "-"
    seconds = duration_ms / 1000
    if seconds < 10:  # noqa: PLR2004 - below it a tenth matters
        return f"{max(seconds, 0):.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def between(start_ms: int | None, end_ms: int | None, now_ms: int) -> str:
    """Return how long something took or, unfinished, has taken so far."""
    return "-" if not start_ms else span((end_ms or now_ms) - start_ms)


def program() -> str:
    """Return what a person types to run this command line: its name if the shell finds it."""
    import shutil
    import sys
    from pathlib import Path

    ours = Path(sys.prefix) / "bin" / "tailrace"
    found = shutil.which("tailrace")
    if not ours.exists() or (found and Path(found).resolve() == ours.resolve()):
        return "tailrace"
    here = Path.cwd()
    return str(ours.relative_to(here)) if ours.is_relative_to(here) else str(ours)
