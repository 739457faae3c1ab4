"""Warnings about what a workflow reads: names that cannot exist where they are read.

GitHub gives an empty value for each of them, so the workflow runs; it hardly does what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field

from schemas.late import dataclass
from schemas.workflow.compiler.check import Check, Reading
from schemas.workflow.expressions.template import OPEN
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import JobPlan, Triggers
from schemas.workflow.reader import MappingNode, Node, ScalarNode

DISPATCH_INPUTS_MAX = 25
_ODD_IN_VARIABLES = re.compile(r"[\s=&]")


@dataclass(slots=True)
class Known:
    """The names that a job may read, by context; a context that is not in it is not checked."""

    names: dict[str, frozenset[str]] = field(default_factory=dict)
    step_ids: list[str] = field(default_factory=list)


def lint_job(
    check: Check, job: JobPlan, node: MappingNode, readings: Iterable[Reading], on: Triggers
) -> None:
    """Warns about references of one job to needs, steps, matrix values and inputs."""
    known = Known(
        {"needs": frozenset(need.lower() for need in job.needs), **_inputs(on), **_matrix(job)},
        [step.id.lower() for step in job.steps],
    )
    for reading in readings:
        for reference in reading.part.expression.references:
            if reference.property is None:
                continue
            names: Collection[str] | None
            if reference.context == "steps":
                names = known.step_ids[: reading.step]
            else:
                names = known.names.get(reference.context)
            if names is None or reference.property.lower() in names:
                continue
            check.warn(
                check.place(reading.node, reading.text, reading.part.offset + reference.offset),
                _missing(reference.context, reference.property),
                hint=check.guess(reference.property.lower(), names) or "",
                rule="unknown-name",
            )
    _variables(check, node.get("env"))
    _excluded(check, job, node)


def _missing(context: str, name: str) -> str:
    reasons = {
        "needs": f"'{name}' is not in the `needs` of this job",
        "steps": f"no step before this has the id '{name}'",
        "matrix": f"the matrix of this job has no '{name}'",
        "inputs": f"the workflow declares no input '{name}'",
    }
    return f"{context}.{name} is always empty: {reasons[context]}"


def _inputs(on: Triggers) -> dict[str, frozenset[str]]:
    declared = frozenset(name.lower() for name in (*on.dispatch_inputs, *on.call_inputs))
    return {"inputs": declared}


def _matrix(job: JobPlan) -> dict[str, frozenset[str]]:
    """The keys of the matrix, when all of them are written in the file."""
    strategy = job.strategy
    if strategy is None:
        return {"matrix": frozenset()}
    if strategy.whole is not None:
        return {}
    matrix = strategy.matrix
    if matrix is None:
        return {"matrix": frozenset()}
    if not isinstance(matrix, dict) or any(OPEN in key for key in matrix):
        return {}
    names = {key.lower() for key in matrix if key not in ("include", "exclude")}
    include = matrix.get("include", [])
    if not isinstance(include, list):
        return {}
    for item in include:
        if not isinstance(item, dict) or any(OPEN in key for key in item):
            return {}
        names.update(key.lower() for key in item)
    return {"matrix": frozenset(names)}


def _variables(check: Check, node: Node | None) -> None:
    if not isinstance(node, MappingNode):
        return
    for key, _ in node.entries:
        if OPEN not in key.text and _ODD_IN_VARIABLES.search(key.text):
            check.warn(key, f"'{key.text}' is no name for an environment variable", rule="env-name")


def _excluded(check: Check, job: JobPlan, node: MappingNode) -> None:
    """An exclude entry with a key or a value that no combination has excludes nothing."""
    matrix = job.strategy.matrix if job.strategy is not None else None
    strategy = node.get("strategy")
    written = strategy.get("matrix") if isinstance(strategy, MappingNode) else None
    entries = written.get("exclude") if isinstance(written, MappingNode) else None
    if not isinstance(matrix, dict) or entries is None or isinstance(entries, ScalarNode):
        return
    for item in getattr(entries, "items", ()):
        if isinstance(item, MappingNode):
            _excluded_item(check, matrix, item)


def _excluded_item(check: Check, matrix: Mapping[str, Value], item: MappingNode) -> None:
    names = {name.lower(): name for name in matrix if name not in ("include", "exclude")}
    for key, value in item.entries:
        if OPEN in key.text or any(OPEN in name for name in names):
            continue
        if key.text.lower() not in names:
            check.warn(
                key,
                f"'{key.text}' is not in the matrix, so this entry excludes nothing",
                hint=check.guess(key.text, names.values()) or "",
                rule="matrix",
            )
            continue
        vector = matrix[names[key.text.lower()]]
        if (
            isinstance(value, ScalarNode)
            and isinstance(vector, list)
            and not any(isinstance(each, str) and OPEN in each for each in (*vector, value.value))
            and value.value not in vector
            and value.text not in vector
        ):
            check.warn(
                value,
                f"'{key.text}' is never '{value.text}', so this entry excludes nothing",
                rule="matrix",
            )


def lint_triggers(check: Check, on: Triggers, node: Node) -> None:
    """Warns about inputs that GitHub would not show, or that never need to be given."""
    if len(on.dispatch_inputs) > DISPATCH_INPUTS_MAX:
        check.warn(
            node,
            f"{len(on.dispatch_inputs)} inputs are more than the {DISPATCH_INPUTS_MAX} that "
            "GitHub allows",
            rule="inputs",
        )
    for name, spec in on.call_inputs.items():
        if spec.required and spec.default is not None:
            check.warn(
                node, f"the input '{name}' is required, so its default is never used", rule="inputs"
            )
