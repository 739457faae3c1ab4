"""Finds the groups of a log while it is written: the only place that knows where one begins.

It reads what the log shows, after commands were taken and secrets masked, so that the runner's own
words and a step's `::group::` are one kind of thing, as they are for every reader of the log.
"""

from __future__ import annotations

import re
from dataclasses import field

from schemas.events import LogGroup
from schemas.late import dataclass

#: With their titles, groups stay a small part of the largest record.
GROUPS_A_STEP_MAX = 1_000
TITLE_CHARACTERS_MAX = 200

_MARK = re.compile(rb"(?m)^##\[(group|endgroup)\]([^\n]*)$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(slots=True)
class _Step:
    groups: list[LogGroup] = field(default_factory=list)
    title: str | None = None
    first_line: int = 0


class LogGroups:
    """The groups of one attempt's log, by step."""

    def __init__(self) -> None:
        """Start with an empty log."""
        self._steps: dict[int, _Step] = {}

    def take(self, step: int, first_line: int, masked: bytes, *, continues: bool = False) -> None:
        """Look at whole lines that are added to the log at `first_line`.

        With `continues` the first of them is the rest of the line before, and begins nothing.
        """
        if b"##[" not in masked:
            return
        at, line = 0, first_line
        for found in _MARK.finditer(masked):
            line += masked.count(b"\n", at, found.start())
            at = found.start()
            if continues and at == 0:
                continue
            known = self._steps.setdefault(step, _Step())
            _close(known, line)
            if found[1] == b"group":
                known.title, known.first_line = _title(found[2]), line

    def ended(self, step: int, next_line: int) -> tuple[LogGroup, ...]:
        """Return the groups of a step that ended before `next_line`, and forget them."""
        known = self._steps.pop(step, None)
        if known is None:
            return ()
        _close(known, next_line)
        return tuple(known.groups)


def _close(known: _Step, line: int) -> None:
    if known.title is not None and len(known.groups) < GROUPS_A_STEP_MAX:
        known.groups.append(
            LogGroup(title=known.title, first_line=known.first_line, lines=line - known.first_line)
        )
    known.title = None


def _title(text: bytes) -> str:
    shown = _COLOUR.sub("", text.decode("utf-8", "replace"))
    return "".join(c if c.isprintable() else " " for c in shown).strip()[:TITLE_CHARACTERS_MAX]
