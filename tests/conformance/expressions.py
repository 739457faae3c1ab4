"""The sets `expressions/cases`, `expressions/if` and `expressions/steps`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from schemas.workflow.expressions import (
    ExpressionError,
    Value,
    evaluate,
    evaluate_condition,
    evaluate_template,
)
from schemas.workflow.expressions.values import kind
from schemas.workflow.hashfiles import HashPatterns, combined_digest
from schemas.workflow.status import (
    CompositeScope,
    JobScope,
    JobStatus,
    StatusScope,
    StepResult,
    StepScope,
    conclude_step,
    status_after,
)
from tests.conformance.cases import Case, Outcome, checked, differs, read_lines


def run_cases(root: Path) -> Iterator[Outcome]:
    """Expressions and templates with their value or error."""
    folder = root / "expressions"
    for case in read_lines(folder / "cases.jsonl"):
        yield checked(case["id"], lambda case=case: _case(case, folder))  # type: ignore[misc]


def _case(case: Case, folder: Path) -> str | None:
    hash_files = None
    if "workspace" in case:
        hash_files = _hasher(folder / case["workspace"])
    run = evaluate if case["mode"] == "expr" else evaluate_template
    try:
        value: Value = run(case["expr"], case["context"], hash_files=hash_files)
    except ExpressionError as error:
        if "error" not in case:
            return f"unexpected {error.stage} error: {error}"
        late = (error.stage == "evaluation", case["error"]["stage"] == "evaluation")
        return None if late[0] == late[1] else f"the error came in {error.stage}: {error}"
    if "error" in case:
        return f"expected an error, got {value!r}"
    return differs(case["expected"], {"kind": kind(value), "value": _finite(value)})


def _finite(value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _hasher(workspace: Path) -> Callable[[list[str]], str]:
    def hash_files(patterns: list[str]) -> str:
        wanted = HashPatterns(patterns)
        files = sorted(path for path in workspace.rglob("*") if path.is_file())
        return combined_digest(
            hashlib.sha256(path.read_bytes()).digest()
            for path in files
            if wanted.matches(path.relative_to(workspace).as_posix())
        )

    return hash_files


def run_conditions(root: Path) -> Iterator[Outcome]:
    """Status functions in jobs, steps and composite steps."""
    for case in read_lines(root / "expressions" / "if.jsonl"):
        yield checked(case["id"], lambda case=case: _condition(case))  # type: ignore[misc]


def _condition(case: Case) -> str | None:
    return differs(case["expected"], evaluate_condition(case["if"], {}, _scope(case)))


def _scope(case: Case) -> StatusScope:
    state = case["state"]
    if case["scope"] == "job":
        return JobScope({job: need["result"] for job, need in state.get("needs", {}).items()})
    if case["scope"] == "composite_step":
        return CompositeScope(state.get("job_status"), state.get("action_status"))
    status: JobStatus | None = state.get("job_status")
    for step in state.get("steps", {}).values():
        status = status_after(status, step["conclusion"])
    return StepScope(status)


def run_steps(root: Path) -> Iterator[Outcome]:
    """Lists of steps: which of them run, and what the job and the steps context become."""
    for case in read_lines(root / "expressions" / "steps.jsonl"):
        yield checked(case["id"], lambda case=case: _steps(case))  # type: ignore[misc]


def _steps(case: Case) -> str | None:
    status: JobStatus | None = None
    ran: list[int] = []
    context: dict[str, Value] = {}
    for step in case["steps"]:
        runs, broken = False, False
        try:
            runs = evaluate_condition(step["if"], {"steps": context}, StepScope(status))
        except ExpressionError:
            broken = True
        ran.append(int(runs))
        outcome: StepResult = (
            step["result_if_run"] if runs else ("failure" if broken else "skipped")
        )
        conclusion = conclude_step(
            outcome, continue_on_error=step["continue_on_error"] and not broken
        )
        status = status_after(status, conclusion)
        context[step["id"]] = {"outcome": outcome, "conclusion": conclusion, "outputs": {}}
    found = differs(case["expected_job_result"], status or "success")
    if found is None and "expected_ran" in case:
        found = differs(case["expected_ran"], ran)
    if found is None and "expected_steps_context" in case:
        found = _context_differs(case["expected_steps_context"], context)
    return found


def _context_differs(expected: Case, context: dict[str, Value]) -> str | None:
    for step_id, wanted in expected.items():
        actual = context.get(step_id)
        if not isinstance(actual, dict):
            return f"no step {step_id}"
        for name, value in wanted.items():
            if actual.get(name) != value:
                return f"{step_id}.{name}: expected {value!r}, got {actual.get(name)!r}"
    return None
