"""The step machine: which steps run, what they see, and what the job comes to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from runner.steps import (
    Ended,
    Hook,
    Interruption,
    NotRun,
    OutputsTooLargeError,
    Ready,
    StepEnd,
    StepMachine,
)
from schemas.events import Conclusion
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import DefaultsPlan, JobPlan, StepPlan
from tests.support.shared_data import shared_folder

CONTEXTS: dict[str, Value] = {
    name: {}
    for name in (
        "github",
        "needs",
        "matrix",
        "strategy",
        "inputs",
        "vars",
        "secrets",
        "runner",
        "job",
    )
}


def machine(*steps: StepPlan, **job: object) -> StepMachine:
    """Return a machine before its first step."""
    env = job.pop("workflow_env", None)
    plan = JobPlan(id="job", steps=steps, **job)  # type: ignore[arg-type]
    return StepMachine(plan, CONTEXTS, env=env)  # type: ignore[arg-type]


def step(name: str, condition: str | None = None, **values: object) -> StepPlan:
    """Return a `run` step whose id is its script."""
    return StepPlan(id=name, run=name, condition=condition, **values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Scenario:
    """Steps, how those that run end, and what must come of it."""

    claim: str
    steps: tuple[StepPlan, ...]
    ends: dict[str, StepEnd] = field(default_factory=dict)
    ran: tuple[str, ...] = ()
    conclusion: str = "success"
    reason: str = ""


FAIL = StepEnd("failure", reason="user.exit_code", exit_code=1)
SCENARIOS = (
    Scenario("all steps run", (step("a"), step("b")), ran=("a", "b")),
    Scenario(
        "a failure skips what does not ask for it",
        (step("a"), step("b"), step("c", "always()"), step("d", "failure()")),
        {"a": FAIL}, ("a", "c", "d"), "failure", "user.exit_code",
    ),
    Scenario(
        "continue-on-error keeps the job going",
        (step("a", continue_on_error=True), step("b")), {"a": FAIL}, ("a", "b"),
    ),
    Scenario(
        "the first failure gives the reason",
        (step("a"), step("b", "always()")),
        {"a": StepEnd("failure", reason="user.step_timeout"), "b": FAIL},
        ("a", "b"), "failure", "user.step_timeout",
    ),
    Scenario(
        "a condition reads outputs",
        (step("a"), step("b", "steps.a.outputs.x == 'yes'"), step("c", "!steps.a.outputs.x")),
        {"a": StepEnd("success", outputs={"x": "yes"})}, ("a", "b"),
    ),
    Scenario(
        "a condition that can't be read fails its step",
        (step("a", "fromJSON('not json')"), step("b")), {}, (), "failure", "user.bad_expression",
    ),
    Scenario(
        "a script that can't be read fails its step",
        (StepPlan(id="a", run="${{ nothing.x }}", line=7), step("b", "always()")),
        {}, ("b",), "failure", "user.bad_expression",
    ),
)  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.claim)
def test_the_machine_decides(scenario: Scenario) -> None:
    """A list of steps and their ends give exactly these runs and this conclusion."""
    ran, ended = _through(machine(*scenario.steps), scenario.ends)

    assert ran == scenario.ran
    assert (ended.conclusion, ended.reason) == (scenario.conclusion, scenario.reason)


def _through(subject: StepMachine, ends: dict[str, StepEnd]) -> tuple[tuple[str, ...], Ended]:
    ran: list[str] = []
    while True:
        match subject.next():
            case Ended() as ended:
                return tuple(ran), ended
            case Ready() as ready:
                ran.append(ready.id)
                subject.finished(ends.get(ready.id, StepEnd("success", exit_code=0)))
            case NotRun():
                continue


def test_githubs_own_step_lists() -> None:
    """GitHub's runner decides the same in its own unit tests."""
    path = shared_folder("conformance", "expressions", "steps.jsonl")
    cases = [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    assert [case["id"] for case in cases if not _agrees(case)] == []


def _agrees(case: dict[str, Any]) -> bool:
    given = case["steps"]
    subject = machine(
        *(step(s["id"], s["if"], continue_on_error=s["continue_on_error"]) for s in given)
    )
    ran, ended = _through(subject, {s["id"]: StepEnd(s["result_if_run"]) for s in given})
    expected_ran = case.get("expected_ran") or [int(s["id"] in ran) for s in given]
    return (
        ended.conclusion == case["expected_job_result"]
        and [int(s["id"] in ran) for s in given] == expected_ran
        and subject.steps == case.get("expected_steps_context", subject.steps)
    )


def test_env_comes_from_workflow_job_step_and_earlier_steps() -> None:
    """The nearer wins, and GITHUB_ENV of an earlier step wins over the job's own."""
    subject = machine(
        step("a"),
        step("b", env={"OWN": "${{ env.LEVEL }}-${{ env.NEW }}"}),
        workflow_env={"LEVEL": "workflow", "W": "w"},
        env={"LEVEL": "job", "FROM": "${{ env.W }}"},
    )
    first = subject.next()
    assert isinstance(first, Ready)
    assert first.env == {"LEVEL": "job", "W": "w", "FROM": "w"}
    subject.finished(StepEnd("success", env={"LEVEL": "file", "NEW": "n"}))

    second = subject.next()

    assert isinstance(second, Ready)
    assert second.env["OWN"] == "file-n"


def test_a_condition_reads_the_variables_of_its_own_step() -> None:
    """They are evaluated first, so that a secret can be asked for by way of them."""
    subject = machine(
        step("a", condition="env.TOKEN != ''", env={"TOKEN": "${{ vars.none }}"}),
        step("b", condition="env.TOKEN != ''", env={"TOKEN": "${{ github.sha }}x"}),
        env={"TOKEN": "job"},
    )

    skipped, ready = subject.next(), subject.next()

    assert isinstance(skipped, NotRun)
    assert skipped.conclusion == "skipped"
    assert isinstance(ready, Ready)


def test_paths_go_in_front_the_last_first() -> None:
    """GITHUB_PATH entries are put before the others, none twice."""
    subject = machine(step("a"), step("b"))
    subject.next()
    subject.finished(StepEnd("success", paths=("/one", "/two")))
    subject.next()
    subject.finished(StepEnd("success", paths=("/one",)))

    assert subject.paths == ("/one", "/two")


def test_an_interruption_decides_the_conclusion_and_what_still_runs() -> None:
    """Only always() and cancelled() hold; success of what follows changes nothing."""
    subject = machine(step("a"), step("b"), step("c", "always()"), step("d", "cancelled()"))
    subject.next()
    subject.interrupt(Interruption(Conclusion.CANCELLED, "cancel.user"))
    subject.finished(StepEnd("cancelled"))

    ran, ended = _through(subject, {})

    assert ran == ("c", "d")
    assert (ended.conclusion, ended.reason) == ("cancelled", "cancel.user")


def test_post_steps_run_last_first_after_the_rest() -> None:
    """What actions ask for runs in reverse order, by its own condition."""
    subject = machine(step("a"), step("b"))
    subject.next()
    subject.finished(StepEnd("success", posts=(Hook("Post a"),)))
    subject.next()
    subject.finished(StepEnd("failure", posts=(Hook("Post b"), Hook("No", "success()"))))
    names = []
    while not isinstance(found := subject.next(), Ended):
        names.append((found.name, type(found).__name__))
        if isinstance(found, Ready):
            subject.finished(StepEnd("success"))

    assert names == [("No", "NotRun"), ("Post b", "Ready"), ("Post a", "Ready")]
    assert found.conclusion == "failure"


def test_shell_directory_and_limits_come_with_their_defaults() -> None:
    """A step's own wins over the job's defaults; minutes become milliseconds."""
    subject = machine(
        step("a"),
        step("b", shell="sh", working_directory="x", timeout_minutes="${{ fromJSON('2.5') }}"),  # noqa: S604
        defaults_run=DefaultsPlan(shell="bash", working_directory="sub"),  # noqa: S604
    )
    first = subject.next()
    subject.finished(StepEnd("success"))
    second = subject.next()

    assert isinstance(first, Ready)
    assert isinstance(second, Ready)
    assert (first.shell, first.working_directory, first.timeout_ms) == ("bash", "sub", None)
    assert (second.shell, second.working_directory, second.timeout_ms) == ("sh", "x", 150_000)


def test_outputs_are_evaluated_at_the_end_and_limited() -> None:
    """Empty ones are left out; all together may have 64 KiB."""
    subject = machine(
        step("a"), outputs={"one": "${{ steps.a.outputs.x }}", "none": "${{ steps.a.outputs.y }}"}
    )
    subject.next()
    subject.finished(StepEnd("success", outputs={"x": "1"}))
    assert subject.outputs() == {"one": "1"}

    big = machine(step("a"), outputs={"big": "x" * 65_536})
    with pytest.raises(OutputsTooLargeError, match="65539 bytes"):
        big.outputs()


def test_the_github_context_has_the_steps_own_name_and_files() -> None:
    """`github.action` and `github.env` are those of the step that comes next."""
    subject = machine(step("a"), StepPlan(id="b", run="${{ github.action }} ${{ github.env }}"))
    files = iter(("/files/env_1", "/files/env_2"))
    subject.next_files = lambda: {"env": next(files)}

    assert isinstance(subject.next(), Ready)
    subject.finished(StepEnd("success"))
    ready = subject.next()

    assert isinstance(ready, Ready)
    assert ready.run == "b /files/env_2"


def test_variables_may_be_one_expression() -> None:
    """`env: ${{ fromJSON(…) }}` of the workflow, the job and the step, the inner one first."""
    whole: dict[str, Value] = {"${{ insert }}": '${{ fromJSON(\'{"A": 1, "B": "w"}\') }}'}
    own: dict[str, Value] = {"${{ insert }}": "${{ fromJSON('{\"B\": true}') }}"}
    subject = machine(step("a", env=own), workflow_env=whole)

    ready = subject.next()

    assert isinstance(ready, Ready)
    assert ready.env == {"A": "1", "B": "true"}
