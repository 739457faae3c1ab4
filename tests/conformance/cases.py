"""What a set of cases is, and reading its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

# A case as its file has it; the formats are in the data's README.
Case: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one case ended; `detail` says what differs when it failed."""

    id: str
    detail: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the case gave what it expects."""
        return self.detail is None


CaseSet: TypeAlias = Callable[[Path], Iterator[Outcome]]


def read_lines(path: Path) -> list[Case]:
    """The cases of a JSON-lines file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def checked(case_id: str, check: Callable[[], str | None]) -> Outcome:
    """The outcome of a check; an exception that nobody expected is a failure, not a crash."""
    try:
        return Outcome(case_id, check())
    except Exception as error:  # noqa: BLE001 -- one broken case must not hide the others
        return Outcome(case_id, f"{type(error).__name__}: {error}")


def differs(expected: object, actual: object) -> str | None:
    """None when the values are the same: numbers as floats, objects with their key order."""
    if comparable(expected) == comparable(actual):
        return None
    return f"expected {expected!r}, got {actual!r}"


def comparable(value: object) -> object:
    """A value in a form in which `==` means what the cases mean by equal."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        number = float(value)
        return "NaN" if number != number else number  # noqa: PLR0124
    if isinstance(value, (list, tuple)):
        return [comparable(item) for item in value]
    if isinstance(value, dict):
        return [("key", key, comparable(item)) for key, item in value.items()]
    return value
