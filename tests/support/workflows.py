"""Workflow texts compiled to plans, for tests of what comes after the planner."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from schemas.workflow.compile import compile_workflow
from schemas.workflow.plan import WorkflowPlan

PATH = ".github/workflows/ci.yml"


def compiled(text: str, path: str = PATH, files: Mapping[str, str] | None = None) -> WorkflowPlan:
    """Return the plan of a workflow text; AssertionError with its problems when it has any.

    `files` are the reusable workflows that it may call, by path.
    """
    texts = {name: textwrap.dedent(content).encode() for name, content in (files or {}).items()}
    found = compile_workflow(path, textwrap.dedent(text).encode(), read_file=texts.get)
    assert found.plan is not None, [str(problem) for problem in found.problems]
    return found.plan
