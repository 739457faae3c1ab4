"""Numbers and how they are shown: percentiles, rows, JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One figure with its goal and the limit that was measured beside it."""

    name: str
    value: float
    unit: str
    goal: str = ""
    limit: float | None = None
    limit_is: str = ""

    @property
    def ratio(self) -> float | None:
        """Return value over limit."""
        return self.value / self.limit if self.limit else None


@dataclass(slots=True)
class Report:
    """All rows of a run, in order, with free details for the JSON file."""

    rows: list[Row] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Keep a row and print it at once."""
        self.rows.append(row)
        print(as_text(row), flush=True)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        content = {
            "machine": {"cpu": platform.processor() or platform.machine(), "system":
                        platform.platform(), "python": platform.python_version()},
            "rows": [{**asdict(row), "ratio": row.ratio} for row in self.rows],
            "details": self.details,
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def as_text(row: Row) -> str:
    """Return a row as one line of the table."""
    text = f"{row.name:<52}{row.value:>12,.1f} {row.unit:<10}"
    if row.goal:
        text += f" goal {row.goal:<14}"
    if row.limit is not None:
        text += f" limit {row.limit:,.1f} ({row.limit_is}), ratio {row.ratio:.2f}"
    return text


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie; nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(report: Report, name: str, values: Sequence[float], *, unit: str = "ms",
           goals: tuple[str, str, str] = ("", "", "")) -> None:  # fmt: skip
    """Add p50, p95 and p99 of some values."""
    for share, goal in zip((0.50, 0.95, 0.99), goals, strict=True):
        report.add(Row(f"{name} p{share * 100:.0f}", percentile(values, share), unit, goal))
