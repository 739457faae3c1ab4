"""The shared language cases, set by set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.fuzz import Fuzzer
from tests.conformance.runs import local_runs, observed
from tests.conformance.services import as_kept, service_runs
from tests.conformance.sets import SETS, NamedSet


@pytest.fixture(scope="module")
def cases() -> Path:
    """Return the folder of the cases; absent is a failure unless it is switched off."""
    named = os.environ.get("TAILRACE_SHARED", str(Path(__file__).parents[2] / ".." / "shared"))
    if named == "none":
        pytest.skip("TAILRACE_SHARED is none: there are no language cases to run")
    folder = Path(named) / "conformance"
    assert folder.is_dir(), (
        f"{folder} is missing: set TAILRACE_SHARED to the folder with the cases, or to none"
    )
    return folder


#: Whole runs are the business of the test that runs them both ways.
_PURE = [each for each in SETS if each.needs != "runs"]


@pytest.mark.parametrize("case_set", _PURE, ids=lambda case_set: case_set.name)
def test_every_case_gives_what_it_expects(case_set: NamedSet, cases: Path) -> None:
    """No case of the set fails, and there are some."""
    outcomes = list(case_set.outcomes(cases))

    failed = [f"{outcome.id}: {outcome.detail}" for outcome in outcomes if not outcome.passed]
    assert outcomes
    assert failed == []


def test_run_local_and_the_services_agree_case_by_case(cases: Path) -> None:
    """Each run ends as its case expects both ways, and alike down to steps, outputs and remarks."""
    local = {ran.case["id"]: ran for ran in local_runs(cases)}
    served = {ran.case["id"]: ran for ran in service_runs(cases)}

    outcomes = [ran.outcome() for ran in local.values()]
    outcomes += [as_kept(ran).outcome() for ran in served.values()]
    assert [f"{each.id}: {each.detail}" for each in outcomes if not each.passed] == []
    assert local.keys() == served.keys()
    assert local
    both = {name: (ran.run, served[name].run) for name, ran in local.items()}
    assert [
        name for name, (here, there) in both.items()
        if here is None or there is None or observed(here) != observed(there)
    ] == []  # fmt: skip


def test_changed_cases_raise_nothing_but_the_languages_errors(cases: Path) -> None:
    """Some thousand mutations of the cases: none crashes, is slow or needs much memory."""
    findings = Fuzzer(cases, seed=20261123).run(3000)

    assert findings.inputs == 3000
    assert findings.failures == []
