"""A plan in the form in which the data has GitHub's parser's results, to compare the two."""

from __future__ import annotations

import math
from typing import Any

from schemas.workflow.expressions.nodes import Literal
from schemas.workflow.expressions.template import (
    OPEN,
    Part,
    condition_expressions,
    parse_template,
)
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import InputPlan, JobPlan, StepPlan, WorkflowPlan

Json = Any


def official_jobs(plan: WorkflowPlan) -> list[Json]:
    """The jobs of a plan, those of called workflows inside their callers."""
    return [_job(plan, job) for job in plan.children(None)]


def comparable_jobs(jobs: list[Json]) -> list[Json]:
    """Jobs without what a plan keeps in another way: field order, and defaults by place.

    A plan has the defaults of workflow and job merged, descriptions only where they are shown.
    """
    return [_comparable_job(job) for job in jobs]


def _comparable_job(job: Json) -> Json:
    form = {name: job[name] for name in sorted(job) if name != "defaults"}
    if "jobs" in form:
        form["jobs"] = comparable_jobs(form["jobs"])
    for name in ("input-definitions", "secret-definitions"):
        if name in form:
            form[name] = [
                (entry["Key"], _definition_entries(entry["Value"])) for entry in form[name]["map"]
            ]
    return form


def _definition_entries(value: Json) -> list[Json]:
    entries = [] if value is None else value["map"]
    return sorted(
        (entry["Key"], entry["Value"])
        for entry in entries
        if entry["Key"] != "description" and not (entry["Key"] == "required" and not entry["Value"])
    )


def _job(plan: WorkflowPlan, job: JobPlan) -> Json:
    return _caller(plan, job) if job.uses is not None else _own(job)


def _head(job: JobPlan, kind: str) -> Json:
    name = _token(job.name) if job.name else job.local_id
    return {"type": kind, "id": job.local_id, "name": name}


def _own(job: JobPlan) -> Json:
    form = _head(job, "job")
    form["if"] = _condition(job.condition)
    form["runs-on"] = _token(job.runs_on)
    optional = {
        "needs": [need.rpartition(".")[2] for need in job.needs],
        "strategy": job.strategy and _strategy(job),
        "continue-on-error": _token(job.continue_on_error),
        "timeout-minutes": _token(job.timeout_minutes),
        "concurrency": job.concurrency and _concurrency(job),
        "env": job.env and _token(job.env),
        "environment": job.environment and _environment(job),
        "services": job.services and _token(job.services),
        "outputs": job.outputs and _token(dict(job.outputs)),
        "steps": [_step(step) for step in job.steps],
    }
    return form | {name: value for name, value in optional.items() if value}


def _caller(plan: WorkflowPlan, job: JobPlan) -> Json:
    form = _head(job, "reusableWorkflowJob")
    form["needs"] = [need.rpartition(".")[2] for need in job.needs]
    form["if"] = _condition(job.condition)
    form["ref"] = job.uses
    call = job.call
    assert call is not None
    if call.inputs:
        form["input-definitions"] = _map(
            [(name, _definition(spec)) for name, spec in call.inputs.items()]
        )
    if job.with_:
        form["input-values"] = _token(job.with_)
    if call.secrets:
        form["secret-definitions"] = _map(
            [
                (name, _map([("required", True)]) if required else None)
                for name, required in call.secrets.items()
            ]
        )
    if job.secrets == "inherit":
        form["inherit-secrets"] = True
    elif job.secrets:
        form["secret-values"] = _token(job.secrets)
    if job.strategy is not None:
        form["strategy"] = _strategy(job)
    form["jobs"] = [_job(plan, inner) for inner in plan.children(job.id)]
    return form


def _definition(spec: InputPlan) -> Json:
    entries: list[tuple[str, Json]] = []
    if spec.default is not None:
        entries.append(("default", _token(spec.default)))
    if spec.required:
        entries.append(("required", True))
    return _map([*entries, ("type", spec.type)])


def _step(step: StepPlan) -> Json:
    form: Json = {"id": step.id}
    if step.name is not None:
        form["name"] = _token(step.name)
    form["if"] = _condition(step.condition)
    if step.continue_on_error is not False:
        form["continue-on-error"] = _token(step.continue_on_error)
    if step.env:
        form["env"] = _token(step.env)
    if step.run is not None:
        form["run"] = _token(step.run)
    if step.uses is not None:
        form["uses"] = step.uses
    if step.with_:
        form["with"] = _token(step.with_)
    return form


def _strategy(job: JobPlan) -> Json:
    strategy = job.strategy
    assert strategy is not None
    entries: list[tuple[str, Json]] = []
    if strategy.fail_fast is not True:
        entries.append(("fail-fast", _token(strategy.fail_fast)))
    if strategy.max_parallel is not None:
        entries.append(("max-parallel", _token(strategy.max_parallel)))
    if strategy.matrix is not None:
        entries.append(("matrix", _token(strategy.matrix)))
    return _map(entries)


def _concurrency(job: JobPlan) -> Json:
    concurrency = job.concurrency
    assert concurrency is not None
    entries = [("group", _token(concurrency.group))]
    if concurrency.cancel_in_progress is not False:
        entries.append(("cancel-in-progress", _token(concurrency.cancel_in_progress)))
    if concurrency.queue != "single":
        entries.append(("queue", concurrency.queue))
    return entries[0][1] if len(entries) == 1 else _map(entries)


def _environment(job: JobPlan) -> Json:
    environment = job.environment
    assert environment is not None
    entries = [("name", _token(environment.name))]
    if environment.url is not None:
        entries.append(("url", _token(environment.url)))
    return _map([*entries, ("deployment", _token(environment.deployment))])


def _condition(condition: str | None) -> Json:
    template = condition_expressions(condition)
    if not template.parts:
        return {"type": 3, "expr": "success()"}
    text = template.single.text if template.single else _joined(condition or "")
    own = any(part.expression.has_status_function for part in template.expressions)
    return {"type": 3, "expr": text if own else f"success() && ({text})"}


def _map(entries: list[tuple[str, Json]]) -> Json:
    """A mapping, in order."""
    return {"type": 2, "map": [{"Key": key, "Value": value} for key, value in entries]}


def _key(key: str) -> Json:
    if OPEN in key:
        if parse_template(key).directive:
            return {"type": 4, "directive": "insert"}
        return _token(key)
    return key


def _token(value: Value | dict[str, str] | None) -> Json:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return {"type": 1, "seq": [_token(item) for item in value]}
    if isinstance(value, dict):
        return _map([(_key(key), _token(item)) for key, item in value.items()])
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _text(text: str) -> Json:
    if OPEN not in text:
        return text
    single = parse_template(text).single
    if single is None:
        return {"type": 3, "expr": _joined(text)}
    if isinstance(single.root, Literal) and isinstance(single.root.value, str):
        return single.root.value
    return {"type": 3, "expr": single.text}


def _joined(text: str) -> str:
    """The one `format` expression that stands for a text with several parts."""
    written: list[str] = []
    operands: list[str] = []
    for part in parse_template(text).parts:
        if isinstance(part, Part):
            written.append(f"{{{len(operands)}}}")
            operands.append(f", {part.expression.text}")
        else:
            written.append(part.replace("'", "''").replace("{", "{{").replace("}", "}}"))
    return f"format('{''.join(written)}'{''.join(operands)})"
