"""A pytest plugin: how long each suite took beside the time it may take, and what was left out.

Budgets are for two cores. A suite's time is the sum of its tests' (with fixtures) divided by the
number of workers, so that it can be compared with the whole run's.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

TOTAL_S = 600


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests under these paths, and the seconds that they may take."""

    name: str
    paths: tuple[str, ...]
    budget_s: int


SUITES = (
    Suite("unit, property", ("tests/unit/", "tests/property/"), 90),
    Suite("contract", ("tests/contract/",), 40),
    Suite("conformance", ("tests/conformance/",), 90),
    Suite("simulation", ("tests/simulation/",), 60),
    Suite("integration", ("tests/integration/",), 270),
    Suite("browser", ("tests/browser/",), 90),
    Suite("chaos", ("tests/chaos/",), 60),
    Suite("install", ("tests/integration/test_embedded_install", "tests/install/"), 60),
)
OTHER = Suite("other", (), 0)


def suite_of(node_id: str) -> Suite:
    """Return the suite of a test: the one with the longest path that it is under."""
    found = [(len(path), suite.name) for suite in SUITES for path in suite.paths
             if node_id.startswith(path)]  # fmt: skip
    if not found:
        return OTHER
    _, name = max(found)
    return next(suite for suite in SUITES if suite.name == name)


@dataclass(slots=True, eq=False)  # pytest keeps its plugins in sets
class Budget:
    """Collects the durations that the workers report."""

    workers: int = 1
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tests: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    without_data: int = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase of one test."""
        name = suite_of(report.nodeid).name
        self.seconds[name] += report.duration
        if report.when == "call" or report.skipped:
            self.tests[name] += 1
        if report.skipped and "TAILRACE_SHARED" in str(report.longrepr):
            self.without_data += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a line a suite."""
        if not self.tests:
            return
        terminalreporter.write_sep("-", "time by suite")
        for line, over in self.lines():
            terminalreporter.write_line(line, red=over)
        if self.without_data:
            terminalreporter.write_line(
                f"{self.without_data} tests skipped: TAILRACE_SHARED is `none`", yellow=True
            )

    def lines(self) -> list[tuple[str, bool]]:
        """Return each line and whether its budget was exceeded."""
        found = []
        for suite in (*SUITES, OTHER):
            if not self.tests[suite.name]:
                continue
            took_s = self.seconds[suite.name] / self.workers
            over = bool(suite.budget_s) and took_s > suite.budget_s
            found.append((_line(suite.name, self.tests[suite.name], took_s, suite.budget_s), over))
        total_s = sum(self.seconds.values()) / self.workers
        found.append((_line("all", sum(self.tests.values()), total_s, TOTAL_S), total_s > TOTAL_S))
        return found


def _line(name: str, tests: int, took_s: float, budget_s: int) -> str:
    of_budget = f"of {budget_s:4d} s" if budget_s else ""
    over = "  OVER BUDGET" if budget_s and took_s > budget_s else ""
    return f"{name:<16}{tests:6d} tests {took_s:7.1f} s {of_budget}{over}"


def pytest_configure(config: pytest.Config) -> None:
    """Count in the process that prints, not in the workers."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        return
    workers = getattr(config.option, "numprocesses", None) or 1
    config.pluginmanager.register(Budget(workers=int(workers)), "tailrace-budget")
