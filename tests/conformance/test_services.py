"""How cases are brought to the services, and how their runs are read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra.cli.local.fold import run_json
from schemas.workflow.compile import compile_workflow
from tests.conformance.read_back import steps_context, view_of
from tests.conformance.runs import Ran
from tests.conformance.services import Given, as_kept, waves

_ROW: dict[str, Any] = {
    "matrix": None, "matrix_of": None, "conclusion": "success", "reason": "", "message": None,
    "live_attempt": 1, "started_at": 1, "finished_at": 2, "outputs": {}, "summary": None,
    "annotations": [], "steps": [], "attempts": [],
}  # fmt: skip


def row(key: str, place: str = "", **more: Any) -> dict[str, Any]:
    """Return a job as the API shows it."""
    return {**_ROW, "job_id": f"r1.{place or key}", "key": key, "name": key, **more}


def shown(*rows: dict[str, Any]) -> dict[str, Any]:
    """Return a run of the API as `run-local` shows one."""
    run = {
        "run_id": "r1", "repository": "a/b", "workflow": "w.yml", "workflow_name": "W",
        "event": "push", "ref": "refs/heads/main", "sha": "0" * 40, "conclusion": "failure",
        "reason": "", "problems": [], "jobs": list(rows),
    }  # fmt: skip
    return run_json(view_of(run))


def test_a_matrix_job_is_what_its_legs_come_to() -> None:
    """The read model shows the legs alone."""
    legs = [
        row("m", f"m.{n}", matrix={"n": n}, matrix_of="r1.m", conclusion=end)
        for n, end in enumerate(("success", "failure"))
    ]
    run = shown(row("first"), *legs)
    assert run["job_conclusions"] == {"first": "success", "m": "failure"}
    assert run["matrix_legs"] == [
        {"job": "m", "matrix": {"n": 0}, "conclusion": "success"},
        {"job": "m", "matrix": {"n": 1}, "conclusion": "failure"},
    ]


def test_a_caller_s_jobs_are_those_whose_ids_begin_with_its_own() -> None:
    """Called jobs, and a matrix among them, are no jobs of the workflow itself."""
    inner = [
        row("call.one", "call.one"),
        row("call.m", "call.m.0", matrix={"n": 1}, matrix_of="r1.call.m"),
    ]
    run = shown(row("call", conclusion=None), *inner)
    assert run["job_conclusions"] == {"call": "success"}
    assert run["called_workflow_jobs"] == {"call": {"one": "success", "m": "success"}}
    assert run["matrix_legs"] == []


def test_a_step_s_row_is_found_behind_the_hooks_of_actions() -> None:
    """Pre steps come first and post steps last; a step may itself be called `Pre`."""
    text = """
on: push
jobs:
  a:
    runs-on: x
    steps:
      - {uses: ./action, id: used}
      - {run: "true", id: own, name: Pre flight}
"""
    plan = compile_workflow("w.yml", text).plan
    assert plan is not None
    ended = {"outcome": "failure", "conclusion": "success"}
    rows = [
        {"name": name, **(ended if name == "Pre flight" else dict.fromkeys(ended, "success"))}
        for name in ("Pre Run ./action", "Run ./action", "Pre flight", "Post Run ./action")
    ]
    assert steps_context(plan.jobs[0], rows)["own"] == ended


def test_only_cases_that_say_their_repository_s_name_wait_for_each_other(tmp_path: Path) -> None:
    """The others run at once under names of their own, whatever characters their ids have."""
    made = {"a": "echo hi", "b/c": "echo $GITHUB_REPOSITORY", "b c": "x", "d": "say own/name"}
    cases = []
    for number, (name, text) in enumerate(made.items()):
        (tmp_path / str(number) / "repo").mkdir(parents=True)
        (tmp_path / str(number) / "repo" / "script").write_text(text)
        case = {"id": name, "context": {"repository": "own/name"}, "workflow": "w.yml"}
        cases.append(Given(case, tmp_path / str(number)))
    first, second = waves(cases)
    assert [given.id for given in first] == ["a", "b/c", "b c"]
    assert [given.id for given in second] == ["d"]
    names = [given.name for given in first]
    assert names[:2] == ["own/name-a", "own/name"]
    assert names[2].startswith("own/name-b-c-")


def test_outputs_of_steps_are_not_asked_of_read_models() -> None:
    """Outcome and conclusion are, whether the case names jobs or steps alone."""
    step = {"outputs": {"x": "1"}, "outcome": "success", "conclusion": "success"}
    kept = {"outcome": "success", "conclusion": "success"}
    for given, expected in (({"s": step}, {"s": kept}), ({"j": {"s": step}}, {"j": {"s": kept}})):
        ran = as_kept(Ran({"id": "x", "steps_context": given}, None))
        assert json.dumps(ran.case["steps_context"], sort_keys=True) == json.dumps(
            expected, sort_keys=True
        )
