"""Jobs that need a container engine: which runner they go to, when they wait, when they fail."""

from __future__ import annotations

import pytest

from scheduler.core.cell import Cell
from scheduler.core.state import State, dump_changes, load_row
from schemas import events as e
from tests.support.cells import CellDriver
from tests.unit.scheduler.test_core_scenarios import Scenario, words

LINUX = ("linux",)
ENGINE = (e.CONTAINERS,)


def workflow(extra: str, steps: str = "[{run: 'true'}]") -> str:
    """Return a workflow of a job with more keys, and of one that needs it."""
    return (
        f"on: push\njobs:\n  build: {{runs-on: linux, {extra}steps: {steps}}}\n"
        "  after: {needs: build, runs-on: linux, steps: [{run: 'true'}]}\n"
    )


INSIDE = workflow("container: alpine, ")
SCHEDULED = ("RunPlanned", "JobScheduled build first")
REFUSED = (
    "JobFailed build user.unsupported_container", "JobSkipped after condition",
    "RunFinished failure",
)  # fmt: skip
ASSIGNED = ("JobAssigned build", "Assignment build")
BLOCKED = "JobBlocked build no_engine"


def _plain(driver: CellDriver) -> object:
    return driver.join("plain", labels=LINUX)


def _able(driver: CellDriver) -> object:
    return driver.join("able", labels=LINUX, capabilities=ENGINE)


def _push(text: str = INSIDE) -> object:
    def push(driver: CellDriver) -> object:
        driver.receive()
        return driver.plan(text)

    return push


def _scenario(claim: str, *steps: object, then: tuple[str, ...]) -> Scenario:
    def play(driver: CellDriver) -> list[object]:
        for step in steps[:-1]:
            step(driver)  # type: ignore[operator]
        return steps[-1](driver)  # type: ignore[operator,no-any-return]

    return Scenario(claim, play, then)  # type: ignore[arg-type]


SCENARIOS = (
    _scenario(
        "a container job waits where no runner is up",
        _push(),
        then=(*SCHEDULED, "JobBlocked build no_runner"),
    ),
    _scenario(
        "a container job is refused where runners are up and none has an engine",
        _plain, _push(), then=(*SCHEDULED, *REFUSED),
    ),
    _scenario(
        "services need an engine as a container does",
        _plain, _push(workflow("services: {db: postgres}, ")), then=(*SCHEDULED, *REFUSED),
    ),
    _scenario(
        "a docker:// step needs an engine",
        _plain, _push(workflow("", "[{uses: 'docker://alpine'}]")), then=(*SCHEDULED, *REFUSED),
    ),
    _scenario(
        "a docker:// step that may be skipped is left to the runner",
        _plain,
        _push(workflow("", "[{uses: 'docker://alpine', if: 'failure()'}]")),
        then=(*SCHEDULED, *ASSIGNED),
    ),
    _scenario(
        "an image that comes out empty is no container",
        _plain,
        _push(workflow("container: {image: \"${{ vars.IMAGE }}\"}, ")),
        then=(*SCHEDULED, *ASSIGNED),
    ),
    _scenario(
        "an image that can't be evaluated fails the job",
        _plain,
        _push(workflow("container: \"${{ fromJSON('{') }}\", ")),
        then=("RunPlanned", "JobFailed build user.expression", *REFUSED[1:]),
    ),
    _scenario(
        "a container job goes to the runner that has an engine",
        _plain, _able, _push(), then=(*SCHEDULED, *ASSIGNED),
    ),
    _scenario(
        "a container job that waits is refused when a runner without an engine comes",
        _push(), _plain, then=("Welcome", *REFUSED),
    ),
    _scenario(
        "a container job waits while the runner with an engine is only away",
        _plain, _able, lambda d: d.lose("able"), _push(), then=(*SCHEDULED, BLOCKED),
    ),
    _scenario(
        "a container job is refused when the runner comes back without its engine",
        _plain, _able, lambda d: d.lose("able"), _push(),
        lambda d: d.join("able", boot="b2", labels=LINUX),
        then=("Welcome", *REFUSED),
    ),
    _scenario(
        "a runner with other labels does not decide about a container job",
        lambda d: d.join("mac", labels=("macos",)), _push(),
        then=(*SCHEDULED, "JobBlocked build no_runner"),
    ),
    _scenario(
        "a pool that has an engine comes before one that serves the labels only",
        lambda d: d.configure(pools=("default", "big")),
        _plain,
        lambda d: d.join("able", labels=LINUX, pool="big", capabilities=ENGINE),
        _push(),
        then=(*SCHEDULED, *ASSIGNED),
    ),
    _scenario(
        "each leg's image counts for itself",
        _plain,
        _push(
            "on: push\njobs:\n  build:\n    runs-on: linux\n"
            "    strategy: {fail-fast: false, matrix: {image: ['', alpine]}}\n"
            "    container: {image: \"${{ matrix.image }}\"}\n    steps: [{run: 'true'}]\n"
        ),
        then=(
            "RunPlanned", "MatrixExpanded build", "JobScheduled build.0 first",
            "JobScheduled build.1 first", "JobFailed build.1 user.unsupported_container",
            "JobAssigned build.0", "Assignment build.0",
        ),
    ),
)  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.claim)
def test_the_scheduler_decides(scenario: Scenario) -> None:
    """A recorded history and one more event give exactly these decisions."""
    driver = CellDriver()
    driver.configure()
    assert scenario.then == words(scenario.play(driver))


def test_a_refusal_says_what_is_missing_where_and_what_to_do() -> None:
    """The message names the job, the pool, the labels and the way out."""
    driver = CellDriver()
    driver.configure()
    _plain(driver)
    driver.push(INSIDE)
    [failed] = driver.of(e.JobFailed)
    assert isinstance(failed, e.JobFailed)
    for part in ("'build'", "pool default", "labels linux", "install docker or podman"):
        assert part in failed.message


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.claim)
def test_the_recorded_decisions_fold_to_the_same_rows(scenario: Scenario) -> None:
    """A cell that folds inputs and recorded decisions, and one restored from rows, agree."""
    driver = CellDriver()
    driver.configure()
    scenario.play(driver)
    rows = dict(dump_changes(driver.cell.state))
    restored = State()
    for key, value in rows.items():
        if value is not None:
            load_row(restored, key, value)
    again = Cell(state=restored)
    assert {key for key, value in rows.items() if value is not None} == {
        f"{table.prefix}/{key}" for table in again.state.tables for key in table.rows
    }
    before = driver.cell.index.pools
    for name, pool in again.index.pools.items():
        assert pool.runners == before[name].runners
        for wants, queue in pool.queues.items():
            assert queue.first(again.state) == before[name].queues[wants].first(driver.cell.state)
