"""Reusable workflows: finds the called files, checks what is passed, puts their jobs in line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace

from schemas.late import dataclass
from schemas.workflow.compiler.shared import PERMISSION_LEVELS
from schemas.workflow.compiler.unit import Unit, compile_unit
from schemas.workflow.errors import Problem
from schemas.workflow.expressions.template import OPEN
from schemas.workflow.expressions.values import Value, to_string
from schemas.workflow.plan import CallPlan, InputPlan, JobPlan, Permissions, WorkflowPlan
from schemas.workflow.reader import MappingNode, Node

DEPTH_MAX = 10
JOBS_MAX = 2000

ReadFile = Callable[[str], bytes | None]
ReadRemote = Callable[[str, str, str], bytes | None]
_RANK = {"none": 0, "read": 1, "write": 2}


@dataclass(frozen=True, slots=True)
class Source:
    """Where relative calls of a file lead to: this commit, or a repository at a ref."""

    repository: str | None = None
    ref: str | None = None


@dataclass(slots=True)
class Linker:
    """Resolves the calls of a workflow and, in turn, of what it calls."""

    read_file: ReadFile | None
    read_remote: ReadRemote | None
    units: dict[tuple[Source, str], Unit | None] = field(default_factory=dict)
    jobs: list[JobPlan] = field(default_factory=list)

    def link(self, unit: Unit, plan: WorkflowPlan) -> WorkflowPlan:
        """The plan with the jobs of all called workflows after their callers."""
        if not any(job.uses for job in plan.jobs):
            return plan
        self._add(unit, plan, Source(), None, None, ((Source(), unit.path),))
        return replace(plan, jobs=tuple(self.jobs))

    def _add(
        self,
        unit: Unit,
        plan: WorkflowPlan,
        source: Source,
        parent: str | None,
        allowed: Permissions | None,
        chain: tuple[tuple[Source, str], ...],
    ) -> None:
        prefix = f"{parent}." if parent is not None else ""
        for job in plan.jobs:
            if len(self.jobs) >= JOBS_MAX:
                return
            # A dot makes an id invalid (which is reported) and would not be told from a prefix.
            callable_id = "." not in job.id
            if parent is not None:
                needs = tuple(prefix + need for need in job.needs)
                job = replace(job, id=prefix + job.id, needs=needs, parent=parent)  # noqa: PLW2901
            self.jobs.append(job)
            if job.uses and callable_id:
                self._call(unit, job, source, allowed, chain)
        if len(self.jobs) >= JOBS_MAX:
            unit.check.report((1, 1), f"the workflow has more than {JOBS_MAX} jobs in all")

    def _call(
        self,
        unit: Unit,
        job: JobPlan,
        source: Source,
        allowed: Permissions | None,
        chain: tuple[tuple[Source, str], ...],
    ) -> None:
        place = unit.job_nodes[job.local_id].get("uses") or unit.job_nodes[job.local_id]
        target = _target(job.uses or "", source)
        if target is None:
            return
        if target in chain:
            unit.check.report(place, f"'{job.uses}' calls itself", rule="calls")
            return
        if len(chain) >= DEPTH_MAX:
            unit.check.report(
                place, f"workflows call each other more than {DEPTH_MAX} levels deep", rule="calls"
            )
            return
        called = self._unit(target, unit, place, job.uses or "")
        if called is None or called.plan is None:
            return
        plan = called.plan
        position = len(self.jobs) - 1
        self.jobs[position] = replace(job, call=_call_plan(plan))
        if plan.on.event("workflow_call") is None:
            unit.check.report(
                place,
                f"workflow_call key is not defined in the referenced workflow '{job.uses}'",
                hint="add `workflow_call:` to its `on:`",
                rule="calls",
            )
            return
        _check_inputs(unit, job, place, plan)
        _check_secrets(unit, job, place, plan)
        limits = job.permissions if job.permissions is not None else allowed
        _check_permissions(unit, job, called, limits)
        self._add(called, plan, target[0], job.id, limits, (*chain, target))

    def _unit(
        self, target: tuple[Source, str], caller: Unit, place: Node, uses: str
    ) -> Unit | None:
        """The called file; None when it cannot be had."""
        source, path = target
        if target not in self.units:
            if source.repository is None:
                text = self.read_file(path) if self.read_file else None
            else:
                text = (
                    self.read_remote(source.repository, path, source.ref or "")
                    if self.read_remote
                    else None
                )
            shown = path if source.repository is None else f"{source.repository}/{path}"
            self.units[target] = None if text is None else compile_unit(shown, text)
        unit = self.units[target]
        if unit is None:
            readable = self.read_file if source.repository is None else self.read_remote
            if readable is not None:
                caller.check.report(
                    place, f"Unable to find reusable workflow '{uses}'", rule="calls"
                )
        elif unit.errors:
            first = unit.errors[0]
            caller.check.report(
                place,
                f"the called workflow '{uses}' has errors: {first.message} "
                f"({first.path}:{first.line}:{first.column})",
                rule="calls",
            )
        return unit

    @property
    def problems(self) -> list[Problem]:
        """What was found in the called files."""
        return [
            problem
            for unit in self.units.values()
            if unit is not None
            for problem in unit.check.problems
        ]


def _target(uses: str, source: Source) -> tuple[Source, str] | None:
    """The file that a call means, seen from a file of `source`."""
    if uses.startswith("./"):
        # with a ref it is refused by itself, and needs not be looked for
        return None if "@" in uses else (source, uses.removeprefix("./"))
    location, at, ref = uses.partition("@")
    owner, _, rest = location.partition("/")
    name, _, path = rest.partition("/")
    if not at or not path or OPEN in uses:
        return None
    return Source(f"{owner}/{name}", ref), path


def _call_plan(plan: WorkflowPlan) -> CallPlan:
    return CallPlan(
        path=plan.path,
        name=plan.name if plan.name != plan.path else "",
        inputs=plan.on.call_inputs,
        secrets=plan.on.call_secrets,
        outputs=plan.on.call_outputs,
        env=plan.env,
        concurrency=plan.concurrency,
    )


def _entry_places(unit: Unit, job: JobPlan, name: str) -> dict[str, tuple[Node, Node]]:
    """The name and value nodes under `with` or `secrets`, by lower-case name."""
    node = unit.job_nodes[job.local_id].get(name)
    if not isinstance(node, MappingNode):
        return {}
    return {key.text.lower(): (key, value) for key, value in node.entries}


def _check_names(
    unit: Unit,
    job: JobPlan,
    place: Node,
    what: str,
    given: Mapping[str, Value],
    declared: Mapping[str, bool],
) -> None:
    """Reports names that are not declared and required ones that are not given.

    `declared` says of each name whether it must be given.
    """
    by_name = {name.lower(): name for name in declared}
    places = _entry_places(unit, job, "with" if what == "input" else "secrets")
    for name in given:
        if name.lower() not in by_name and OPEN not in name:
            unit.check.report(
                places[name.lower()][0] if name.lower() in places else place,
                f"Invalid {what}, {name} is not defined in the referenced workflow",
                hint=unit.check.guess(name, by_name.values())
                or (f"it declares: {', '.join(declared)}" if declared else "it declares none"),
                rule="calls",
            )
    if any(OPEN in name for name in given):
        return
    names = {name.lower() for name in given}
    for name, required in declared.items():
        if required and name.lower() not in names:
            unit.check.report(
                place,
                f"{what.capitalize()} {name} is required, but not provided while calling",
                rule="calls",
            )


def _check_inputs(unit: Unit, job: JobPlan, place: Node, plan: WorkflowPlan) -> None:
    declared = plan.on.call_inputs
    # As on GitHub: a default does not make up for a required input that is left out.
    required = {name: spec.required for name, spec in declared.items()}
    _check_names(unit, job, place, "input", job.with_, required)
    by_name = {name.lower(): spec for name, spec in declared.items()}
    places = _entry_places(unit, job, "with")
    for name, value in job.with_.items():
        spec = by_name.get(name.lower())
        if spec is not None and not _fits(spec, value):
            unit.check.report(
                places[name.lower()][1] if name.lower() in places else place,
                f"Unexpected value '{to_string(value)}': the input '{name}' is a {spec.type}",
                rule="calls",
            )


def _fits(spec: InputPlan, value: Value) -> bool:
    if isinstance(value, str) and OPEN in value:
        return True
    if spec.type == "boolean":
        return isinstance(value, bool)
    if spec.type == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return not isinstance(value, (list, dict))


def _check_secrets(unit: Unit, job: JobPlan, place: Node, plan: WorkflowPlan) -> None:
    if job.secrets == "inherit":
        return
    _check_names(unit, job, place, "secret", job.secrets or {}, plan.on.call_secrets)


def _level(permissions: Permissions, scope: str) -> int:
    if isinstance(permissions, str):
        best = "read" if permissions == "read-all" else "write"
        levels = PERMISSION_LEVELS[scope]
        return _RANK[best] if best in levels else (0 if best == "read" else _RANK[levels[0]])
    return _RANK.get(permissions.get(scope, "none"), 0)


def _check_permissions(unit: Unit, job: JobPlan, called: Unit, allowed: Permissions | None) -> None:
    """A called workflow cannot have more of the token than its caller."""
    if allowed is None or called.plan is None:
        return
    place = unit.job_names[job.local_id]
    seen: set[str] = set()
    for inner in called.plan.jobs:
        wanted = inner.permissions
        if wanted is None:
            continue
        whole = wanted is called.permissions
        for scope in PERMISSION_LEVELS:
            level = _level(wanted, scope)
            if level <= _level(allowed, scope):
                continue
            who = f"workflow '{job.uses}'" if whole else f"nested job '{inner.id}'"
            names = {rank: name for name, rank in _RANK.items()}
            message = (
                f"Error calling workflow '{job.uses}'. The {who} is requesting "
                f"'{scope}: {names[level]}', but is only allowed "
                f"'{scope}: {names[_level(allowed, scope)]}'"
            )
            if message not in seen:
                seen.add(message)
                unit.check.report(place, message, rule="permissions")
