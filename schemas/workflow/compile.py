"""The way in: a workflow file to a plan, with everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from schemas.late import dataclass
from schemas.workflow.compiler.calls import Linker, ReadFile, ReadRemote
from schemas.workflow.compiler.unit import compile_unit
from schemas.workflow.errors import Problem
from schemas.workflow.plan import WorkflowPlan

PROBLEMS_MAX = 200


@dataclass(frozen=True, slots=True)
class Compiled:
    """The outcome of compiling: a plan, or the problems that forbid one; warnings apart."""

    plan: WorkflowPlan | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def compile_workflow(
    path: str,
    text: bytes | str,
    *,
    read_file: ReadFile | None = None,
    read_remote: ReadRemote | None = None,
) -> Compiled:
    """Compiles a workflow, reusable workflows included.

    `read_file(path)` gives a file of the same commit, `read_remote(owner/repository, path, ref)`
    one of another repository; None means that there is none. Without a reader such calls stay
    unresolved: the job has `uses` but no `call`.
    """
    unit = compile_unit(path, text)
    linker = Linker(read_file, read_remote)
    plan = unit.plan
    if plan is not None:
        plan = linker.link(unit, plan)
    found = sorted(
        _distinct([*unit.check.problems, *linker.problems]),
        key=lambda problem: (problem.path != path, problem.path, problem.line, problem.column),
    )
    errors = _listed([problem for problem in found if problem.severity == "error"])
    warnings = _listed([problem for problem in found if problem.severity == "warning"])
    return Compiled(None if errors else plan, errors, warnings)


def _listed(problems: list[Problem]) -> tuple[Problem, ...]:
    """The problems, the last of very many replaced by their number."""
    if len(problems) <= PROBLEMS_MAX:
        return tuple(problems)
    first = problems[PROBLEMS_MAX - 1]
    more = len(problems) - PROBLEMS_MAX + 1
    note = replace(first, message=f"{more} more problems are not listed", hint=None)
    return (*problems[: PROBLEMS_MAX - 1], note)


def _distinct(problems: list[Problem]) -> Iterator[Problem]:
    """Each problem once: a node behind an anchor is read at every alias."""
    return iter(dict.fromkeys(problems))
