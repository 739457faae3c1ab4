"""One workflow file by itself: its plan before calls are resolved, and where things stand in it."""

from __future__ import annotations

from dataclasses import field

from schemas.late import dataclass
from schemas.workflow.compiler.check import Check
from schemas.workflow.compiler.graph import resolve_needs
from schemas.workflow.compiler.job_section import read_job
from schemas.workflow.compiler.lint import lint_job, lint_triggers
from schemas.workflow.compiler.on_section import read_triggers
from schemas.workflow.compiler.shared import (
    read_concurrency,
    read_defaults,
    read_permissions,
)
from schemas.workflow.errors import Problem
from schemas.workflow.plan import DefaultsPlan, JobPlan, Permissions, Triggers, WorkflowPlan
from schemas.workflow.reader import MappingNode, Node, ScalarNode, read_with_problems

WORKFLOW_KEYS = frozenset(
    {
        "name",
        "description",
        "run-name",
        "on",
        "permissions",
        "env",
        "defaults",
        "concurrency",
        "jobs",
    }
)


@dataclass(slots=True, eq=False)
class Unit:
    """A file compiled alone. `plan` is None when it is no workflow at all."""

    path: str
    check: Check
    plan: WorkflowPlan | None = None
    job_names: dict[str, ScalarNode] = field(default_factory=dict)
    job_nodes: dict[str, MappingNode] = field(default_factory=dict)
    permissions: Permissions | None = None

    @property
    def errors(self) -> list[Problem]:
        """What makes the file unusable."""
        return [problem for problem in self.check.problems if problem.severity == "error"]


def compile_unit(path: str, text: bytes | str) -> Unit:
    """Compiles one file without looking at any other."""
    node, problems = read_with_problems(text, path)
    source = text.decode("utf-8-sig", "replace") if isinstance(text, bytes) else text
    check = Check(path, source, list(problems))
    unit = Unit(path, check)
    if node is None:
        return unit
    if not isinstance(node, MappingNode):
        check.report(node, "a workflow must be a mapping with `on` and `jobs`")
        return unit
    _read(unit, node)
    return unit


def _read(unit: Unit, node: MappingNode) -> None:
    check = unit.check
    found = check.fields(node, "a workflow", WORKFLOW_KEYS)
    for required in ("on", "jobs"):
        if required not in found:
            check.report(node, f"Required property is missing: {required}")
    get = found.get
    triggers = read_triggers(check, entry[1]) if (entry := get("on")) else Triggers()
    if entry := get("on"):
        lint_triggers(check, triggers, entry[1])
    defaults = read_defaults(check, entry[1], None) if (entry := get("defaults")) else None
    unit.permissions = read_permissions(check, entry[1]) if (entry := get("permissions")) else None
    name = check.text_of(entry[1], "name") if (entry := get("name")) else ""
    if entry := get("description"):
        check.text_of(entry[1], "description")
    jobs = (
        _jobs(unit, entry[1], defaults or DefaultsPlan(), triggers)
        if (entry := get("jobs"))
        else []
    )
    plan = WorkflowPlan(
        path=unit.path,
        name=name or unit.path,
        run_name=(check.text_of(entry[1], "run-name", key="run-name") or None)
        if (entry := get("run-name"))
        else None,
        on=triggers,
        env=check.mapping_of_texts(entry[1], "env", key="env") if (entry := get("env")) else {},
        concurrency=read_concurrency(check, entry[1], "concurrency")
        if (entry := get("concurrency"))
        else None,
        jobs=tuple(jobs),
    )
    unit.plan = plan
    _check_groups(unit, plan)


def _jobs(unit: Unit, node: Node, defaults: DefaultsPlan, on: Triggers) -> list[JobPlan]:
    check = unit.check
    jobs: list[JobPlan] = []
    for job_id, id_node, value in check.pairs(node, "jobs"):
        check.identifier(id_node, job_id, "job id")
        check.readings.clear()
        job = read_job(check, job_id, id_node, value, defaults, unit.permissions)
        if job is not None and isinstance(value, MappingNode):
            unit.job_names[job_id] = id_node
            unit.job_nodes[job_id] = value
            jobs.append(job)
            lint_job(check, job, value, check.readings, on)
    if isinstance(node, MappingNode) and not node.entries:
        check.report(node, "jobs lists no job")
    return resolve_needs(check, jobs, unit.job_nodes, node)


def _check_groups(unit: Unit, plan: WorkflowPlan) -> None:
    """A job that waits for its own run would wait for ever."""
    if plan.concurrency is None:
        return
    group = plan.concurrency.group
    for job in plan.jobs:
        own = job.concurrency
        if own is None or own.group.lower() != group.lower():
            continue
        message = (
            f"the concurrency group '{own.group}' of the job '{job.id}' is held by its own run"
        )
        place = unit.job_nodes[job.id].get("concurrency") or unit.job_nodes[job.id]
        if "${{" in group:
            unit.check.warn(place, message + " if both names come out the same", rule="concurrency")
        else:
            unit.check.report(
                place,
                message + ", so it could never start",
                hint="give the job another group, or leave it out",
                rule="concurrency",
            )
