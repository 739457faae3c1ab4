"""The report of time by suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.budget import Budget, suite_of
from tests.support.shared_data import shared_folder


@pytest.mark.parametrize(
    ("node", "suite"),
    [
        ("tests/unit/cli/test_help.py::test_x", "unit, property"),
        ("tests/property/test_liveness.py::test_x", "unit, property"),
        ("tests/integration/test_fleet.py::test_x", "integration"),
        ("tests/integration/test_embedded_install.py::test_x", "install"),
        ("tests/elsewhere/test_x.py::test_x", "other"),
    ],
)
def test_a_test_belongs_to_the_nearest_suite(node: str, suite: str) -> None:
    """The longest path counts."""
    assert suite_of(node).name == suite


def test_time_is_shared_among_the_workers_and_an_excess_is_marked() -> None:
    """Two workers make half the time; over the budget is said in words and in red."""
    budget = Budget(workers=2)
    for node, seconds in [("tests/unit/test_a.py", 10.0), ("tests/integration/test_b.py", 600.0)]:
        budget.pytest_runtest_logreport(
            pytest.TestReport(nodeid=node, location=(node, 0, "t"), keywords={},
                              outcome="passed", longrepr=None, when="call", duration=seconds)
        )  # fmt: skip
    unit, integration, whole = budget.lines()
    assert unit == ("unit, property       1 tests     5.0 s of   90 s", False)
    assert "300.0 s of  270 s  OVER BUDGET" in integration[0]
    assert integration[1]
    assert "305.0 s of  600 s" in whole[0]


def test_absent_shared_data_fails_unless_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing: failed. `none`: skipped. There: its path."""
    monkeypatch.setenv("TAILRACE_SHARED", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="TAILRACE_SHARED"):
        shared_folder("cases")
    (tmp_path / "cases").mkdir()
    assert shared_folder("cases") == tmp_path / "cases"
    monkeypatch.setenv("TAILRACE_SHARED", "none")
    with pytest.raises(pytest.skip.Exception, match="TAILRACE_SHARED"):
        shared_folder("cases")
