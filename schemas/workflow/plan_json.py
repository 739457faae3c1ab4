"""Plans as JSON: compact (what has its default is left out) and lossless."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar

from schemas.workflow.errors import LanguageError
from schemas.workflow.plan import (
    CallPlan,
    ConcurrencyPlan,
    DefaultsPlan,
    EnvironmentPlan,
    EventPlan,
    InputPlan,
    JobPlan,
    RetryPlan,
    SchedulePlan,
    StepPlan,
    StrategyPlan,
    Triggers,
    WorkflowPlan,
)

FORMAT = 1
_NON_FINITE = "$number"
_WRAPPED = "non_finite"
_Plan = TypeVar("_Plan")

# How a field that is not plain JSON is read back: one object, a tuple of them, a map of them.
_NESTED: dict[type, dict[str, tuple[str, type | None]]] = {
    WorkflowPlan: {
        "on": ("one", Triggers),
        "concurrency": ("one", ConcurrencyPlan),
        "jobs": ("tuple", JobPlan),
    },
    Triggers: {
        "events": ("tuple", EventPlan),
        "schedules": ("tuple", SchedulePlan),
        "dispatch_inputs": ("map", InputPlan),
        "call_inputs": ("map", InputPlan),
    },
    JobPlan: {
        "needs": ("tuple", None),
        "defaults_run": ("one", DefaultsPlan),
        "steps": ("tuple", StepPlan),
        "strategy": ("one", StrategyPlan),
        "concurrency": ("one", ConcurrencyPlan),
        "environment": ("one", EnvironmentPlan),
        "call": ("one", CallPlan),
        "retry": ("one", RetryPlan),
    },
    CallPlan: {"inputs": ("map", InputPlan), "concurrency": ("one", ConcurrencyPlan)},
    InputPlan: {"options": ("tuple", None)},
    RetryPlan: {"on": ("tuple", None)},
    EventPlan: dict.fromkeys(
        (
            "types",
            "branches",
            "branches_ignore",
            "tags",
            "tags_ignore",
            "paths",
            "paths_ignore",
            "workflows",
        ),
        ("tuple", None),
    ),
}


class PlanFormatError(LanguageError):
    """The text is no plan of this version; it was written by another one or is damaged."""


@cache
def _defaults(cls: Any) -> tuple[tuple[str, Any], ...]:
    """The fields of a class with their defaults, in order."""
    found = []
    for item in fields(cls):
        default: Any = MISSING
        if item.default is not MISSING:
            default = item.default
        elif item.default_factory is not MISSING:
            default = item.default_factory()
        found.append((item.name, default))
    return tuple(found)


def plan_to_json(plan: WorkflowPlan) -> str:
    """The plan as compact JSON."""
    document: dict[str, Any] = {"v": FORMAT, **_encode(plan)}
    try:
        return _dumps(document)
    except ValueError:
        return _dumps({**_finite(document), _WRAPPED: True})


def plan_from_json(text: str | bytes) -> WorkflowPlan:
    """The plan back from its JSON; raises PlanFormatError."""
    return _read(WorkflowPlan, text)


def _read(cls: type[_Plan], text: str | bytes) -> _Plan:
    try:
        document = json.loads(text)
        if document.pop("v", None) != FORMAT:
            raise PlanFormatError(f"the plan is not of format {FORMAT}")
        if document.pop(_WRAPPED, False):
            document = _restore(document)
        return _decode(cls, document)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PlanFormatError(f"the text is no workflow plan: {error}") from None


def job_to_json(job: JobPlan) -> str:
    """One job of a plan as JSON: what an assignment carries to its runner."""
    document: dict[str, Any] = {"v": FORMAT, **_encode(job)}
    try:
        return _dumps(document)
    except ValueError:
        return _dumps({**_finite(document), _WRAPPED: True})


def job_from_json(text: str | bytes) -> JobPlan:
    """A job back from its JSON; raises PlanFormatError."""
    return _read(JobPlan, text)


def _dumps(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _encode(plan: object) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    cls: Any = type(plan)
    nested = _NESTED.get(cls, {})
    for name, default in _defaults(cls):
        value = getattr(plan, name)
        if value is default or (value == default and type(value) is type(default)):
            continue
        form, inner = nested.get(name, ("", None))
        if inner is None:
            encoded[name] = value
        elif form == "one":
            encoded[name] = _encode(value)
        elif form == "tuple":
            encoded[name] = [_encode(item) for item in value]
        else:
            encoded[name] = {key: _encode(item) for key, item in value.items()}
    return encoded


def _decode(cls: type[_Plan], document: dict[str, Any]) -> _Plan:
    for name, (form, inner) in _NESTED.get(cls, {}).items():
        value = document.get(name)
        if value is None:
            continue
        if form == "one" and inner is not None:
            document[name] = _decode(inner, value)
        elif form == "tuple":
            document[name] = tuple(
                value if inner is None else [_decode(inner, item) for item in value]
            )
        elif inner is not None:
            document[name] = {key: _decode(inner, item) for key, item in value.items()}
    return cls(**document)


def _finite(value: Any) -> Any:
    """Wraps NaN and the infinities, which JSON lacks; keys like the wrapping get a `$` more."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_NON_FINITE: str(value)}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {_escaped(key): _finite(item) for key, item in value.items()}
    return value


def _escaped(key: str) -> str:
    return "$" + key if key.lstrip("$") == _NON_FINITE[1:] and key[:1] == "$" else key


def _restore(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore(item) for item in value]
    if isinstance(value, dict):
        if len(value) == 1 and _NON_FINITE in value:
            return float(value[_NON_FINITE])
        return {
            key[1:] if key != _escaped(key) else key: _restore(item) for key, item in value.items()
        }
    return value
