"""Environments, variables and forks: what the scheduler lets a run and its jobs have."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pytest

from runner.gateway.leases import Leases, Token
from scheduler.core import variables
from schemas import events as e
from schemas.codec import event_id
from schemas.lanes import Assignment
from schemas.variables import VALUE_BYTES_MAX, names_max
from tests.support.cells import REPOSITORY, CellDriver
from tests.support.workflows import PATH, compiled


def driver(**settings: object) -> CellDriver:
    """Return a cell with a repository and a runner."""
    made = CellDriver()
    made.configure(**settings)
    made.join(labels=("linux", "eu"))
    return made


def put(d: CellDriver, name: str, value: str, repository: str = REPOSITORY, env: str = "") -> None:
    """Set a variable."""
    d.feed(
        e.VariableSet(
            event_id=event_id("VariableSet", repository, env, name, d.offset),
            repository=repository, name=name, value=value, environment=env,
        )
    )  # fmt: skip


def contexts(order: Assignment) -> dict[str, Any]:
    """Return what the runner is given."""
    found: dict[str, Any] = json.loads(order.contexts_json)
    return found


# --------------------------------------------------------------------------- variables

DEPLOY = """
on: push
run-name: to ${{ vars.REGION }}
jobs:
  a:
    if: vars.REGION == 'repo'
    runs-on: [linux, '${{ vars.LABEL }}']
    environment: ${{ vars.STAGE }}
    steps: [{run: 'true'}]
  b:
    if: vars.REGION == 'prod'
    runs-on: linux
    environment: prod
    steps: [{run: 'true'}]
"""


def test_variables_are_where_they_are_read_and_the_nearest_scope_wins() -> None:
    """What decides about a job sees the repository's, the job itself its environment's."""
    d = driver(variables={"stage": "PROD"})
    put(d, "REGION", "everywhere", repository="")
    put(d, "LABEL", "eu", repository="")
    put(d, "REGION", "repo")
    put(d, "REGION", "prod", env="Prod")
    put(d, "REGION", "test", env="test")
    d.push(DEPLOY)

    [planned] = d.of(e.RunPlanned)
    [order] = d.live().values()
    [assigned] = d.of(e.JobAssigned)
    assert isinstance(planned, e.RunPlanned)
    assert isinstance(assigned, e.JobAssigned)
    assert planned.run_name == "to repo"
    assert [event.job_id for event in d.of(e.JobSkipped)] == [f"{planned.run_id}.b"]
    assert assigned.environment == "PROD"
    assert contexts(order)["vars"] == {"REGION": "prod", "LABEL": "eu", "STAGE": "PROD"}


def test_a_job_without_an_environment_sees_none_of_its_variables() -> None:
    """Removed ones are gone; names ignore case."""
    d = driver()
    put(d, "A", "prod", env="prod")
    put(d, "B", "repo")
    put(d, "C", "repo")
    d.feed(e.VariableRemoved(event_id="r", repository=REPOSITORY, name="c"))
    d.push("{on: push, jobs: {a: {runs-on: linux, steps: [{run: 'true'}]}}}")

    [order] = d.live().values()
    assert contexts(order)["vars"] == {"B": "repo"}


def test_outputs_of_a_called_workflow_can_read_variables() -> None:
    """`on.workflow_call.outputs.<id>.value` has `vars`."""
    called = (
        "{on: {workflow_call: {outputs: {o: {value: '${{ vars.A }}'}}}}, "
        "jobs: {x: {runs-on: linux, steps: [{run: 'true'}]}}}"
    )
    caller = (
        "{on: push, jobs: {call: {uses: ./.github/workflows/called.yml}, "
        "after: {needs: call, runs-on: linux, steps: [{run: 'true'}]}}}"
    )
    d = driver()
    put(d, "A", "one")
    d.push(caller, files={".github/workflows/called.yml": called})
    [key] = d.live()
    d.start(key)
    d.finish(key)

    [order] = d.live().values()
    assert contexts(order)["needs"]["call"]["outputs"] == {"o": "one"}


def test_a_scope_is_bounded_in_number_and_in_bytes() -> None:
    """It is one record of the changelog; values that were there before stay."""
    d = driver()
    for number in range(names_max(REPOSITORY, "prod") + 5):
        put(d, f"N{number}", "x", env="prod")
    for number in range(10):
        put(d, f"L{number}", "x" * VALUE_BYTES_MAX)
    rows = d.cell.state.variables

    assert len(rows[f"{REPOSITORY}#prod"].values) == names_max(REPOSITORY, "prod")
    assert sorted(rows[f"{REPOSITORY}#"].values) == [f"L{number}" for number in range(5)]


def of_all(value: str, at: int) -> e.VariableSet:
    """Return that the installation's variable A was set at a time."""
    return e.VariableSet(event_id=f"set-{at}", occurred_at=at, repository="", name="A", value=value)


def gone(at: int) -> e.VariableRemoved:
    """Return that it was removed."""
    return e.VariableRemoved(event_id=f"removed-{at}", occurred_at=at, repository="", name="a")


@pytest.mark.parametrize("last", [of_all("new", 30), gone(30)], ids=["set", "removed"])
@pytest.mark.parametrize("late", [of_all("old", 20), gone(20)], ids=["set", "removed"])
def test_all_cells_agree_on_a_variable_of_the_installation(
    last: e.VariableSet | e.VariableRemoved, late: e.VariableSet | e.VariableRemoved
) -> None:
    """One cell gets a record late, behind a newer one; both have what was said last."""
    found = []
    for events in ([of_all("first", 10), late, last], [of_all("first", 10), last, late]):
        d = driver()
        for event in events:
            d.feed(event)
        found.append(variables.of_job(d.cell.state, REPOSITORY))

    assert found == [{"A": "new"} if isinstance(last, e.VariableSet) else {}] * 2


def test_times_of_removed_variables_are_not_kept_for_ever() -> None:
    """They make the scope's record larger: what is long ago goes with the next change."""
    d = driver()
    d.feed(gone(10))
    d.feed(dataclasses.replace(of_all("x", 10 + variables.LATE_MS), name="B"))

    assert list(d.cell.state.variables["#"].changed) == ["B"]


def test_a_repositorys_variables_go_by_the_order_of_its_log() -> None:
    """It is in one cell; a clock that was set back changes nothing."""
    d = driver()
    for value, at in (("first", 20), ("second", 10)):
        d.feed(dataclasses.replace(of_all(value, at), repository=REPOSITORY))

    assert variables.of_job(d.cell.state, REPOSITORY) == {"A": "second"}


def test_an_environment_that_can_not_be_evaluated_fails_its_job() -> None:
    """A job never runs without the environment that it names."""
    d = driver()
    d.push(
        "{on: push, jobs: {a: {runs-on: linux, environment: '${{ fromJSON(vars.NONE) }}', "
        "steps: [{run: 'true'}]}}}"
    )

    [failed] = d.of(e.JobFailed)
    assert isinstance(failed, e.JobFailed)
    assert failed.reason == "user.expression"
    assert d.live() == {}


# --------------------------------------------------------------------------- forks


@dataclass(frozen=True, slots=True)
class Case:
    """A delivery, and what its run gets: why no secrets, whether it waits for approval."""

    claim: str
    event: str
    withheld: str
    fork: bool = True
    fork_secrets: str = "never"
    waits: bool = False


CASES = (
    Case("a pull request of the repository's own", "pull_request", "", fork=False),
    Case("a fork's pull request", "pull_request", "fork", waits=True),
    Case("... also where the base's workflows get them", "pull_request", "fork",
         fork_secrets="base", waits=True),
    Case("a review on a fork's pull request", "pull_request_review", "fork", waits=True),
    Case("a comment of such a review", "pull_request_review_comment", "fork", waits=True),
    Case("the base's workflow for a fork", "pull_request_target", "fork_event"),
    Case("... where the repository allows it", "pull_request_target", "", fork_secrets="base"),
    Case("the base's workflow for a branch of its own", "pull_request_target", "", fork=False),
    Case("a push", "push", "", fork=False),
    Case("a forge's run of a fork", "workflow_run", "fork_event"),
    Case("... where the repository allows it", "workflow_run", "", fork_secrets="base"),
    Case("a forge's run of the repository's own", "workflow_run", "", fork=False),
    Case("a deployment by a fork's run", "deployment_status", "fork_event"),
    Case("a check of a fork's commit", "check_suite", "fork_event"),
)  # fmt: skip
WITH_SECRET = """
on: push
jobs:
  a:
    runs-on: linux
    environment: prod
    steps: [{run: 'echo ${{ secrets.KEY }}'}]
"""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.claim)
def test_what_a_run_gets_is_decided_when_it_is_planned_and_stands_in_the_event(case: Case) -> None:
    """The runner is told, `github.secret_source` says it, and the gateway folds it by itself."""
    d = driver(fork_secrets=case.fork_secrets)
    d.receive(event=case.event, action="opened", number=7, fork=case.fork)
    d.plan(WITH_SECRET, event=case.event)
    [planned] = d.of(e.RunPlanned)
    assert isinstance(planned, e.RunPlanned)
    assert (planned.secrets_withheld, planned.approval_required) == (case.withheld, case.waits)
    if case.waits:
        assert d.live() == {}
        d.feed(
            e.RunApproved(event_id="ok", repository=REPOSITORY, run_id=planned.run_id, actor="x")
        )

    [order] = d.live().values()
    source = contexts(order)["github"]["secret_source"]
    assert (order.secrets_allowed, source) == (
        (False, "None") if case.withheld else (True, "Actions")
    )
    assert lease_of(d, order).fork == bool(case.withheld)


def lease_of(d: CellDriver, order: Assignment) -> Any:
    """Return what the gateway makes of the same history."""
    leases = Leases()
    for event in d.decisions:
        leases.evolve(event)
    found = leases.lease(
        Token(order.job_id or "", order.attempt or 0, order.runner_id, order.boot_id)
    )
    assert found is not None
    return found


def test_a_further_attempt_of_a_forks_job_gets_no_secrets_either() -> None:
    """Lost, tried again: the run is the same."""
    d = driver(fork_pull_requests="always")
    d.receive(event="pull_request", action="opened", number=7, fork=True)
    d.plan(WITH_SECRET, event="pull_request")
    d.start("a")
    d.lose("r1")
    d.join("r2", labels=("linux",))
    for deadline in [armed for armed in d.cell.state.armed.rows if armed.startswith("grace")]:
        d.pass_deadline(deadline)

    [order] = d.live().values()
    assert order.attempt == 2
    assert not order.secrets_allowed
    assert lease_of(d, order).fork


def test_jobs_of_workflows_that_a_forks_run_calls_get_none() -> None:
    """`secrets: inherit` hands on what there is: nothing."""
    called = (
        "{on: workflow_call, jobs: {x: {runs-on: linux, "
        "steps: [{run: 'echo ${{ secrets.KEY }}'}]}}}"
    )
    caller = "{on: push, jobs: {call: {uses: ./.github/workflows/c.yml, secrets: inherit}}}"
    d = driver(fork_pull_requests="always")
    d.receive(event="pull_request", action="opened", number=7, fork=True)
    plan = compiled(caller, PATH, {".github/workflows/c.yml": called})
    d.plan(caller, files={".github/workflows/c.yml": called}, event="pull_request")

    [order] = d.live().values()
    assert plan.jobs
    assert order.secrets == ("KEY",)
    assert not order.secrets_allowed
    assert lease_of(d, order).fork


@pytest.mark.parametrize(("fork_secrets", "withheld"), [("never", "fork_event"), ("base", "")])
def test_what_a_forks_run_starts_is_a_forks_however_far_it_goes(
    fork_secrets: str, withheld: str
) -> None:
    """workflow_run of a workflow_run of a fork's pull request."""
    after = ".github/workflows/after.yml"
    text = (
        "{{name: {name}, on: {{workflow_run: {{workflows: [{of}], types: [completed]}}}}, "
        "jobs: {{a: {{runs-on: linux, steps: [{{run: 'true'}}]}}}}}}"
    )
    files = {
        after: text.format(name="After", of="CI"),
        ".github/workflows/last.yml": text.format(name="Last", of="After"),
    }
    d = driver(fork_pull_requests="always", fork_secrets=fork_secrets)
    d.index(files, 1_750_000_000_000)
    d.receive(event="pull_request", action="opened", number=7, fork=True)
    d.plan("{name: CI, on: push, jobs: {a: {runs-on: linux, steps: [{run: 'true'}]}}}",
           event="pull_request")  # fmt: skip
    for path, body in files.items():
        d.start("a")
        d.finish("a")
        [made] = [event for event in d.decisions if isinstance(event, e.DeliveryReceived)][-1:]
        assert (made.event, made.fork) == ("workflow_run", True)
        d.plan(body, made.delivery_id or "", path=path, event="workflow_run")

    found = [event.secrets_withheld for event in d.of(e.RunPlanned)
             if isinstance(event, e.RunPlanned)]  # fmt: skip
    assert found == ["fork", withheld, withheld]
