"""What Tailrace adds to a job: retry, queue time-out, priority and pool.

Each can be a key of the job or, where GitHub must accept the same file, a variable of the job's
`env`: `TAILRACE_RETRY`, `TAILRACE_QUEUE_TIMEOUT_MINUTES`, `TAILRACE_PRIORITY`, `TAILRACE_POOL`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from schemas.late import dataclass
from schemas.workflow.compiler.check import Check, Field
from schemas.workflow.expressions.template import OPEN
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import RetryPlan
from schemas.workflow.reader import plain

EXTENSION_KEYS = frozenset({"retry", "queue-timeout-minutes", "priority", "pool"})
_VARIABLES = tuple(
    (key, "TAILRACE_" + key.upper().replace("-", "_")) for key in sorted(EXTENSION_KEYS)
)
_NOT_APPLIED = EXTENSION_KEYS - {"pool"}
RETRIES_MAX = 10
BACKOFF_SECONDS_MAX = 3600
PRIORITY_MAX = 1000
RETRY_KEYS = frozenset({"max", "backoff", "on"})
RETRY_CAUSES = ("failure", "timed_out")
DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h)?\Z")
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600}


@dataclass(slots=True)
class Extensions:
    """The extensions of one job."""

    retry: RetryPlan | None = None
    queue_timeout_minutes: float | None = None
    priority: int = 0
    pool: str | None = None


def read_extensions(check: Check, found: Mapping[str, Field], env: dict[str, Value]) -> Extensions:
    """The extensions from the job's keys and from its `env`."""
    result = Extensions()
    for key, variable in _VARIABLES:
        if key in found:
            value, place = plain(found[key][1]), found[key][1]
        elif variable in env and "env" in found:
            value, place = _from_text(env[variable]), found["env"][1]
        else:
            continue
        name = key if key in found else variable
        message = _set(result, key, value)
        if message:
            check.report(place, f"{name} {message}", rule="extension")
        elif key in _NOT_APPLIED:
            check.warn(place, f"{name} is not applied yet", rule="not-applied")
    return result


def _from_text(value: Value) -> Value:
    if not isinstance(value, str) or OPEN in value:
        return value
    try:
        parsed: Value = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed


def _set(result: Extensions, key: str, value: Value) -> str | None:
    """Puts a value in its place; returns what is wrong with it."""
    if key == "retry":
        result.retry, message = _retry(value)
        return message
    if key == "pool":
        if not isinstance(value, str) or not value or OPEN in value:
            return "must be the name of a pool"
        result.pool = value
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return "must be a number"
    if key == "priority":
        if value != int(value) or abs(value) > PRIORITY_MAX:
            return f"must be a whole number from {-PRIORITY_MAX} to {PRIORITY_MAX}"
        result.priority = int(value)
        return None
    if value <= 0:
        return "must be above 0"
    result.queue_timeout_minutes = value
    return None


def _retry(value: Value) -> tuple[RetryPlan | None, str | None]:
    spec: dict[str, Value] = value if isinstance(value, dict) else {"max": value}
    unknown = set(spec) - RETRY_KEYS
    if unknown:
        return None, f"has no key '{sorted(unknown)[0]}'; expected max, backoff, on"
    times = spec.get("max", 1)
    if not isinstance(times, int) or isinstance(times, bool) or not 0 <= times <= RETRIES_MAX:
        return None, f"must say how often (max), from 0 to {RETRIES_MAX}"
    backoff = _duration(spec.get("backoff", 0))
    if backoff is None or backoff > BACKOFF_SECONDS_MAX:
        return None, f"backoff must be seconds or like 30s or 5m, {BACKOFF_SECONDS_MAX} at most"
    causes = spec.get("on", ["failure"])
    causes = causes if isinstance(causes, list) else [causes]
    names = tuple(cause for cause in causes if isinstance(cause, str) and cause in RETRY_CAUSES)
    if len(names) != len(causes) or not names:
        return None, f"on must list some of: {', '.join(RETRY_CAUSES)}"
    return RetryPlan(max=times, backoff_seconds=backoff, on=names), None


def _duration(value: Value) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value if math.isfinite(value) and value >= 0 else None
    match = DURATION.match(value) if isinstance(value, str) else None
    return float(match.group(1)) * _SECONDS[match.group(2)] if match else None
