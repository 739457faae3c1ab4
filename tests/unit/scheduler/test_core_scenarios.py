"""A history, one more event, and what the scheduler decides: each row is a claim."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from scheduler.core.outputs import Order, Output
from schemas import events as e
from schemas.lanes import Assignment
from tests.support.cells import CellDriver

CHAIN = """
on: push
jobs:
  build: {runs-on: linux, outputs: {v: '1'}, steps: [{run: 'true'}]}
  test: {needs: build, runs-on: linux, steps: [{run: 'true'}]}
  report: {needs: [build, test], if: always(), runs-on: linux, steps: [{run: 'true'}]}
"""
MATRIX = """
on: push
jobs:
  unit:
    runs-on: linux
    strategy: {matrix: {python: ['3.11', '3.12'], os: [linux]}}
    steps: [{run: 'true'}]
  done: {needs: unit, runs-on: linux, steps: [{run: 'true'}]}
"""
LIMITED = MATRIX.replace("strategy: {", "strategy: {max-parallel: 1, fail-fast: false, ")
TOLERANT = """
on: push
jobs:
  flaky: {runs-on: linux, continue-on-error: true, steps: [{run: 'false'}]}
  next: {needs: flaky, runs-on: linux, steps: [{run: 'true'}]}
"""
DYNAMIC = """
on: push
jobs:
  list: {runs-on: linux, outputs: {which: x}, steps: [{run: 'true'}]}
  each:
    needs: list
    runs-on: linux
    strategy: {matrix: {item: "${{ fromJSON(needs.list.outputs.which) }}"}}
    steps: [{run: 'true'}]
"""
LABELS = """
on: push
jobs:
  gpu: {runs-on: [linux, gpu], steps: [{run: 'true'}]}
"""

Play = Callable[[CellDriver], list[Output]]


def _finish_lost(driver: CellDriver) -> list[Output]:
    order = driver.live()["flaky"]
    driver.lose("r1")
    return driver.report(e.JobFinished, order, conclusion="success")


@dataclass(frozen=True)
class Scenario:
    """What happened, ending with the event that is looked at, and what then was decided."""

    claim: str
    play: Play
    then: tuple[str, ...]


def words(outputs: list[Output]) -> tuple[str, ...]:
    """Say outputs shortly: kind, the job's key, and the reason where there is one."""
    said = []
    for output in outputs:
        record = output.record if isinstance(output, Order) else output
        job = (record.job_id or "").partition(".")[2]
        reason = getattr(record, "reason", "")
        conclusion = getattr(record, "conclusion", "")
        parts = [type(record).__name__, job, conclusion, "" if conclusion else reason]
        said.append(" ".join(part for part in parts if part))
    return tuple(said)


def ready(text: str, *, slots: int = 4) -> Callable[[CellDriver], str]:
    """Return a beginning: a runner with slots, and a push of the workflow."""

    def begin(driver: CellDriver) -> str:
        driver.join(slots=slots, labels=("linux",))
        return driver.push(text)

    return begin


def _play(*steps: Callable[[CellDriver], object]) -> Play:
    def run(driver: CellDriver) -> list[Output]:
        for step in steps[:-1]:
            step(driver)
        outputs = steps[-1](driver)
        assert isinstance(outputs, list)
        return outputs

    return run


def _cancel_run(driver: CellDriver) -> list[Output]:
    return driver.cancel(next(iter(driver.cell.state.runs)).run_id)


def _accept_deadline(driver: CellDriver) -> list[Output]:
    [armed] = [d for d in driver.cell.state.armed.rows if d.startswith("accept:")]
    return driver.pass_deadline(armed)


def _deadline(kind: str) -> Callable[[CellDriver], list[Output]]:
    def passed(driver: CellDriver) -> list[Output]:
        [armed] = [d for d in driver.cell.state.armed.rows if d.startswith(f"{kind}:")]
        return driver.pass_deadline(armed)

    return passed


SCENARIOS = (
    Scenario(
        "a push with a free runner is planned, scheduled and assigned in one step",
        _play(
            lambda d: d.join(labels=("linux",)),
            lambda d: d.receive(),
            lambda d: d.plan(CHAIN),
        ),
        ("RunPlanned", "JobScheduled build first", "JobAssigned build", "Assignment build"),
    ),
    Scenario(
        "without a runner the job says that none is up",
        _play(lambda d: d.receive(), lambda d: d.plan(CHAIN)),
        ("RunPlanned", "JobScheduled build first", "JobBlocked build no_runner"),
    ),
    Scenario(
        "a runner without the label leaves the job waiting for it",
        _play(lambda d: d.join(labels=("linux",)), lambda d: d.receive(), lambda d: d.plan(LABELS)),
        ("RunPlanned", "JobScheduled gpu first", "JobBlocked gpu no_runner"),
    ),
    Scenario(
        "a runner that joins with the label gets its welcome and the job",
        _play(ready(LABELS), lambda d: d.join("r2", labels=("gpu", "linux"))),
        ("Welcome", "JobAssigned gpu", "Assignment gpu"),
    ),
    Scenario(
        "a second delivery with the same id starts nothing",
        _play(ready(CHAIN), lambda d: d.receive("d1")),
        ("DeliveryIgnored duplicate_delivery",),
    ),
    Scenario(
        "a synchronize with the head that was just opened starts nothing",
        _play(
            lambda d: d.receive("d1", event="pull_request", action="opened", number=7),
            lambda d: d.receive("d2", event="pull_request", action="synchronize", number=7),
        ),
        ("DeliveryIgnored duplicate_head",),
    ),
    Scenario(
        "a later delivery waits for the earlier one's answer",
        _play(
            lambda d: d.receive("d1"),
            lambda d: d.receive("d2"),
            lambda d: d.plan(CHAIN, "d2"),
        ),
        (),
    ),
    Scenario(
        "a planner that never answers rejects the delivery and lets the next one go",
        _play(
            lambda d: d.receive("d1"),
            lambda d: d.receive("d2"),
            lambda d: d.plan(TOLERANT, "d2"),
            lambda d: d.pass_deadline("plan:d1"),
        ),
        (
            "RunRejected infra.git_unreachable",
            "DeliveryIgnored infra.git_unreachable",
            "RunPlanned",
            "JobScheduled flaky first",
            "JobBlocked flaky no_runner",
        ),
    ),
    Scenario(
        "a finished job lets its dependants go",
        _play(ready(CHAIN), lambda d: d.start("build"), lambda d: d.finish("build")),
        ("JobScheduled test first", "JobAssigned test", "Assignment test"),
    ),
    Scenario(
        "a failed job skips what needs its success; always() runs",
        _play(ready(CHAIN), lambda d: d.finish("build", "failure")),
        (
            "JobSkipped test condition",
            "JobScheduled report first",
            "JobAssigned report",
            "Assignment report",
        ),
    ),
    Scenario(
        "the last job's end finishes the run",
        _play(
            ready(CHAIN),
            lambda d: d.finish("build", "failure"),
            lambda d: d.finish("report"),
        ),
        ("RunFinished failure",),
    ),
    Scenario(
        "a matrix becomes legs that are queued at once",
        _play(lambda d: d.join(labels=("linux",)), lambda d: d.receive(), lambda d: d.plan(MATRIX)),
        (
            "RunPlanned",
            "MatrixExpanded unit",
            "JobScheduled unit.0 first",
            "JobScheduled unit.1 first",
            "JobAssigned unit.0",
            "Assignment unit.0",
            "JobAssigned unit.1",
            "Assignment unit.1",
        ),
    ),
    Scenario(
        "max-parallel holds the second leg back until the first is over",
        _play(ready(LIMITED), lambda d: d.finish("unit.0", "failure")),
        ("JobScheduled unit.1 first", "JobAssigned unit.1", "Assignment unit.1"),
    ),
    Scenario(
        "a failed leg cancels its running siblings by order",
        _play(ready(MATRIX), lambda d: d.finish("unit.0", "failure")),
        ("CancelRequested unit cancel.fail_fast", "CancelOrder unit.1 cancel.fail_fast"),
    ),
    Scenario(
        "the cancelled sibling's own end is what ends the matrix, and the run with it",
        _play(
            ready(MATRIX),
            lambda d: d.finish("unit.0", "failure"),
            lambda d: d.finish("unit.1", "cancelled"),
        ),
        (
            "JobCancelled unit.1 cancel.fail_fast",
            "JobSkipped done condition",
            "RunFinished failure",
        ),
    ),
    Scenario(
        "legs of a matrix that an output names exist once the output does",
        _play(ready(DYNAMIC), lambda d: d.finish("list", which='["a", "b"]')),
        (
            "MatrixExpanded each",
            "JobScheduled each.0 first",
            "JobScheduled each.1 first",
            "JobAssigned each.0",
            "Assignment each.0",
            "JobAssigned each.1",
            "Assignment each.1",
        ),
    ),
    Scenario(
        "a matrix that can't be evaluated fails the job and says why",
        _play(ready(DYNAMIC), lambda d: d.finish("list", which="not json")),
        ("JobFailed each user.expression", "RunFinished failure"),
    ),
    Scenario(
        "continue-on-error lets dependants run and the run succeed",
        _play(
            ready(TOLERANT),
            lambda d: d.finish("flaky", "failure"),
            lambda d: d.finish("next"),
        ),
        ("RunFinished success",),
    ),
    Scenario(
        "a queued job is cancelled at once",
        _play(lambda d: d.push(TOLERANT), _cancel_run),
        (
            "JobCancelled flaky cancel.requested",
            "JobCancelled next cancel.requested",
            "RunFinished cancelled",
        ),
    ),
    Scenario(
        "a running job is asked to end, and nothing else happens until it has",
        _play(ready(TOLERANT), lambda d: d.start("flaky"), _cancel_run),
        ("CancelOrder flaky cancel.requested",),
    ),
    Scenario(
        "success after the request is cancelled, late",
        _play(
            ready(TOLERANT),
            lambda d: d.start("flaky"),
            _cancel_run,
            lambda d: d.finish("flaky"),
        ),
        (
            "JobCancelled flaky cancel.late",
            "JobCancelled next cancel.requested",
            "RunFinished cancelled",
        ),
    ),
    Scenario(
        "always() runs in a cancelled run",
        _play(
            ready(CHAIN),
            lambda d: d.start("build"),
            _cancel_run,
            lambda d: d.finish("build", "cancelled"),
        ),
        (
            "JobCancelled build cancel.requested",
            "JobCancelled test cancel.requested",
            "JobScheduled report first",
            "JobAssigned report",
            "Assignment report",
        ),
    ),
    Scenario(
        "an assignment that nobody accepts in time is withdrawn, its slot kept",
        _play(ready(TOLERANT), _accept_deadline),
        ("Withdraw flaky not accepted in time",),
    ),
    Scenario(
        "a declined assignment becomes the next attempt",
        _play(
            ready(TOLERANT),
            lambda d: d.report(e.AssignmentDeclined, d.live()["flaky"], reason="withdrawn"),
        ),
        ("JobScheduled flaky retry.declined: withdrawn", "JobAssigned flaky", "Assignment flaky"),
    ),
    Scenario(
        "silence after the withdrawal dismisses the boot",
        _play(ready(TOLERANT), _accept_deadline, _deadline("withdraw")),
        (
            "RunnerDismissed no answer to the assignment of JOB, nor to its withdrawal",
            "Dismissed no answer to the assignment of JOB, nor to its withdrawal",
            "AttemptLost flaky infra.runner_silent",
        ),
    ),
    Scenario(
        "a lost runner's attempt waits its grace before it is tried again",
        _play(ready(TOLERANT), lambda d: d.start("flaky"), lambda d: d.lose("r1")),
        ("AttemptLost flaky infra.runner_lost",),
    ),
    Scenario(
        "after the grace the next attempt is queued for another runner",
        _play(
            ready(TOLERANT),
            lambda d: d.lose("r1"),
            lambda d: d.join("r2", labels=("linux",)),
            _deadline("grace"),
        ),
        ("JobScheduled flaky retry.infra.runner_lost", "JobAssigned flaky", "Assignment flaky"),
    ),
    Scenario(
        "a finish within the grace counts",
        _play(
            ready(TOLERANT),
            lambda d: d.start("flaky"),
            _finish_lost,
        ),
        ("JobScheduled next first", "JobBlocked next no_runner"),
    ),
    Scenario(
        "the same runner's higher boot closes the leases of the lower one",
        _play(
            ready(TOLERANT),
            lambda d: d.start("flaky"),
            lambda d: d.join("r1", boot="b2", labels=("linux",)),
        ),
        ("Welcome", "AttemptLost flaky infra.runner_restarted"),
    ),
    Scenario(
        "a lower boot is dismissed",
        _play(ready(TOLERANT), lambda d: d.join("r1", boot="b0", labels=("linux",))),
        ("Dismissed this boot was lost or replaced; its attempts went elsewhere",),
    ),
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.claim)
def test_the_scheduler_decides(scenario: Scenario) -> None:
    """A recorded history and one more event give exactly these decisions."""
    driver = CellDriver()
    driver.configure()
    said = words(scenario.play(driver))
    [*jobs] = {order.job_id for order in driver.orders if isinstance(order, Assignment)}
    for job_id in jobs:
        said = tuple(text.replace(f"{job_id}@1", "JOB") for text in said)
    assert scenario.then == said


CALLED = """
on:
  workflow_call:
    inputs: {where: {type: string, required: true}}
    outputs: {url: {value: "https://${{ jobs.ship.outputs.host }}"}}
jobs:
  check: {runs-on: linux, steps: [{run: 'true'}]}
  ship:
    needs: check
    name: ship to ${{ inputs.where }}
    runs-on: linux
    outputs: {host: x}
    steps: [{run: 'true'}]
"""
CALLS = {"./.github/workflows/ship.yml": CALLED, ".github/workflows/ship.yml": CALLED}
CALLER = """
on: push
jobs:
  deploy:
    uses: ./.github/workflows/ship.yml
    with: {where: moon}
  tell: {needs: deploy, runs-on: linux, steps: [{run: 'echo ${{ needs.deploy.outputs.url }}'}]}
"""
CALLERS = CALLER.replace(
    "    with: {where: moon}",
    "    strategy: {matrix: {where: [moon, mars]}}\n    with: {where: '${{ matrix.where }}'}",
)


def test_a_called_workflow_runs_in_its_caller_s_place() -> None:
    """Its jobs begin with the caller, get its inputs, and give it their outputs."""
    driver = CellDriver()
    driver.configure()
    driver.join(labels=("linux",))
    driver.push(CALLER, files=CALLS)
    assert list(driver.live()) == ["deploy.check"]
    driver.finish("deploy.check")
    assert driver.live()["deploy.ship"].name == "deploy / ship to moon"
    driver.finish("deploy.ship", host="moon.example")
    assert '"outputs":{"url":"https://moon.example"}' in driver.live()["tell"].contexts_json
    assert words(driver.finish("tell")) == ("RunFinished success",)


def test_a_called_job_is_told_how_its_callers_hand_secrets_on() -> None:
    """Each leg with what its own caller's templates read."""
    driver = CellDriver()
    driver.configure()
    driver.join(labels=("linux",))
    handing = "    secrets: {key: '${{ secrets.BASE }}-${{ matrix.where }}'}\n  tell:"
    callee = {path: text.replace("workflow_call:", "workflow_call:\n    secrets: {key: }")
              for path, text in CALLS.items()}  # fmt: skip
    driver.push(CALLERS.replace("  tell:", handing), files=callee)
    maps = [
        json.loads(driver.live()[key].contexts_json)["secret_maps"]
        for key in ("deploy.0.check", "deploy.1.check")
    ]
    assert maps == [
        [
            {
                "values": {"key": "${{ secrets.BASE }}-${{ matrix.where }}"},
                "contexts": {"matrix": {"where": where}},
            }
        ]
        for where in ("moon", "mars")
    ]


def test_each_leg_of_a_matrix_of_calls_has_jobs_of_its_own() -> None:
    """Two legs, two instances; the caller ends with the last of both."""
    driver = CellDriver()
    driver.configure()
    driver.join(labels=("linux",))
    driver.push(CALLERS, files=CALLS)
    assert list(driver.live()) == ["deploy.0.check", "deploy.1.check"]
    driver.finish("deploy.0.check")
    driver.finish("deploy.1.check", "failure")
    assert "deploy.0.ship" in driver.live()
    outputs = driver.finish("deploy.0.ship", "cancelled")
    assert words(outputs) == ("JobCancelled deploy.0.ship cancel.fail_fast",
                              "JobSkipped tell condition", "RunFinished failure")  # fmt: skip


def test_a_skipped_caller_has_no_jobs() -> None:
    """What it would have called does not come into being."""
    driver = CellDriver()
    driver.configure()
    driver.push(CALLER.replace("    with:", "    if: github.ref == 'x'\n    with:"), files=CALLS)
    assert words(driver.outputs) == (
        "RunPlanned", "JobSkipped deploy condition", "JobSkipped tell condition",
        "RunFinished skipped",
    )  # fmt: skip


def test_infra_losses_end_at_the_cutoff() -> None:
    """The third lost attempt fails the job with the infrastructure's reason."""
    driver = CellDriver()
    driver.configure()
    driver.push(LABELS.replace("linux, gpu", "linux"))
    outputs: list[Output] = []
    for attempt in range(1, 4):
        driver.join("r1", boot=f"b{attempt}", labels=("linux",))
        driver.lose("r1", f"b{attempt}")
        outputs = _deadline("grace")(driver)
    assert words(outputs) == ("JobFailed gpu infra.runner_lost", "RunFinished failure")


def test_outputs_beyond_the_run_s_room_fail_the_job_that_brings_them() -> None:
    """512 KiB of outputs a run; the job that passes it fails, and says so."""
    driver = CellDriver()
    driver.configure()
    driver.join(labels=("linux",))
    driver.push(CHAIN)
    outputs = driver.finish("build", v="x" * (512 * 1024))
    assert words(outputs)[:2] == (
        "JobFailed build user.outputs_too_large",
        "JobSkipped test condition",
    )


def test_a_report_of_another_attempt_changes_nothing() -> None:
    """The token of the first attempt is stale once the second one is live."""
    driver = CellDriver()
    driver.configure()
    driver.join(labels=("linux",))
    driver.push(TOLERANT)
    first = driver.live()["flaky"]
    driver.report(e.AssignmentDeclined, first, reason="leaving")
    before = dict(driver.cell.state.jobs.rows)
    outputs = driver.report(e.JobFinished, first, conclusion="success")
    assert words(outputs) == ("StaleReport flaky another attempt is the live one",)
    assert before == driver.cell.state.jobs.rows


def test_every_cause_is_an_earlier_record_and_the_delivery_is_the_only_root() -> None:
    """From any decision of a run the chain of causes ends at its delivery."""
    driver = CellDriver()
    driver.configure()
    driver.join(labels=("linux",))
    driver.push(CHAIN)
    for key in ("build", "test", "report"):
        driver.start(key)
        driver.finish(key)
    known = {driver.inputs[2][1].event_id}
    ours = [*(event for _, event in driver.inputs[3:]), *driver.decisions]
    known |= {event.event_id for event in ours}
    for event in driver.decisions:
        if event.run_id is not None:
            assert event.caused_by in known, event
