"""Reader, compiler and plan hold their promises for any text."""

from __future__ import annotations

import contextlib
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.workflow.compile import compile_workflow
from schemas.workflow.errors import Problem, WorkflowError
from schemas.workflow.expressions import Value, evaluate_value
from schemas.workflow.expressions.template import evaluate_condition
from schemas.workflow.plan_json import plan_from_json, plan_to_json
from schemas.workflow.reader import plain, read_document
from schemas.workflow.secrets import secret_names
from schemas.workflow.status import JobScope
from tests.property.workflow.strategies import NEAR_YAML, VALUES, workflows

PATH = "w.yml"
STEP_CONTEXTS: dict[str, Value] = {"github": {"ref": "x", "sha": "s"}, "env": {"A": "1"}}


@given(text=st.one_of(st.binary(max_size=60), st.text(max_size=60), NEAR_YAML))
def test_a_text_is_a_document_or_a_workflow_error(text: bytes | str) -> None:
    """The reader raises nothing else, and every problem has a place."""
    problems: tuple[Problem, ...] = ()
    try:
        plain(read_document(text, PATH))
    except WorkflowError as error:
        problems = error.problems or (Problem(PATH, 0, 0, ""),)
    for problem in problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.message


@given(text=NEAR_YAML)
def test_compiling_any_text_gives_a_plan_or_problems(text: str) -> None:
    """The compiler never raises."""
    for document in (text, f"on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n    - {text}"):
        compiled = compile_workflow(PATH, document)

        assert (compiled.plan is None) == bool(compiled.problems)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(document=workflows(), key=st.sampled_from(["on", "jobs", "env", "name"]), value=VALUES)
def test_a_workflow_with_one_wrong_value_is_refused_or_planned(
    document: dict[str, Value], key: str, value: Value
) -> None:
    """A value of any shape at any key is at worst a problem with a place."""
    with contextlib.suppress(ValueError):
        text = json.dumps({**document, key: value}, allow_nan=False, ensure_ascii=False)
        compiled = compile_workflow(PATH, text)
        assert all(problem.line >= 1 for problem in compiled.problems)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(document=workflows())
def test_a_valid_workflow_has_a_plan_that_survives_its_json(document: dict[str, Value]) -> None:
    """Compact, lossless, and the same whether indented or in one line."""
    plans = [
        compile_workflow(PATH, json.dumps(document, ensure_ascii=False, indent=indent))
        for indent in (None, 2)
    ]
    plan = plans[0].plan

    assert plan is not None, [str(problem) for problem in plans[0].problems]
    assert plans[1].plan is not None
    assert [job.id for job in plans[1].plan.jobs] == [job.id for job in plan.jobs]
    assert repr(plan_from_json(plan_to_json(plan))) == repr(plan)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(document=workflows())
def test_everything_in_a_plan_can_be_evaluated(document: dict[str, Value]) -> None:
    """No template of a plan is malformed, and its jobs can be put in order."""
    plan = compile_workflow(PATH, json.dumps(document, ensure_ascii=False)).plan
    assert plan is not None

    for job in plan.jobs:
        assert job.id not in plan.ancestors(job.id)
        evaluate_condition(job.condition, STEP_CONTEXTS, JobScope({}))
        evaluate_value(dict(job.env), STEP_CONTEXTS)
        for step in job.steps:
            evaluate_value([step.run, dict(step.env), dict(step.with_)], STEP_CONTEXTS)
        assert secret_names(job, plan) == ()
