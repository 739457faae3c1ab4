"""Workflow texts compiled to plans, for tests of what comes after the planner."""

from __future__ import annotations

import textwrap

from schemas.workflow.compile import compile_workflow
from schemas.workflow.plan import WorkflowPlan

PATH = ".github/workflows/ci.yml"


def compiled(text: str, path: str = PATH) -> WorkflowPlan:
    """Return the plan of a workflow text; AssertionError with its problems when it has any."""
    found = compile_workflow(path, textwrap.dedent(text).encode())
    assert found.plan is not None, [str(problem) for problem in found.problems]
    return found.plan
