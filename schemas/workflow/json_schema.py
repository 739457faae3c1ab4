"""The workflow language as a JSON Schema (2020-12), for editors.

Keys, events, types and levels come from the tables that the compiler reads by, and a key without a
description here is an error, so the schema can't drift from them. It accepts every file that the
compiler accepts, and can't say what needs the whole file: needs, expressions, patterns, duplicates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from schemas.workflow.compiler import extensions as ext
from schemas.workflow.compiler import job_section as job
from schemas.workflow.compiler import on_section as on
from schemas.workflow.compiler import shared, step_section, strategy_section
from schemas.workflow.compiler.check import IDENTIFIER, IDENTIFIER_CHARACTERS_MAX
from schemas.workflow.compiler.unit import WORKFLOW_KEYS
from schemas.workflow.events import EVENTS, EventRule
from schemas.workflow.json_schema_words import KEYS, SECTIONS

Schema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_ID = "urn:tailrace:workflow"

_TEXT: Schema = {"type": ["string", "number", "boolean", "null"]}
_FULL_TEXT: Schema = {"type": ["string", "number", "boolean"], "minLength": 1}
_EXPRESSION: Schema = {"type": "string", "pattern": r"\$\{\{"}


def json_schema() -> Schema:
    """The schema; a new object each time."""
    return {
        "$schema": DIALECT,
        "$id": SCHEMA_ID,
        "title": "Tailrace workflow",
        "description": "A workflow in the language of GitHub Actions, with Tailrace's extensions.",
        **_object("workflow", WORKFLOW_KEYS, _workflow(), required=("on", "jobs")),
        "$defs": _definitions(),
    }


# Building blocks


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _object(
    section: str,
    keys: Collection[str],
    schemas: Mapping[str, Schema],
    *,
    required: tuple[str, ...] = (),
) -> Schema:
    """A mapping with just these keys, each with its schema and its words; all must be there."""
    words = KEYS[section]
    if set(schemas) != set(keys) or not set(keys) <= set(words):
        odd = sorted(set(schemas) ^ set(keys) | set(keys) - set(words))
        raise KeyError(f"keys of {section} without schema or words, or not of the language: {odd}")
    found: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            key: {**schemas[key], "description": words[key]} for key in words if key in schemas
        },
    }
    if section in SECTIONS:
        found["description"] = SECTIONS[section]
    return {**found, "required": list(required)} if required else found


def _names(values: Schema, names: Schema | None = None) -> Schema:
    """A mapping with free names."""
    return {
        "type": "object",
        "propertyNames": names or {"minLength": 1},
        "additionalProperties": values,
    }


def _one_or_more(item: Schema, **more: object) -> Schema:
    return _any(item, {"type": "array", "items": item, **more})


def _pattern(text: str) -> str:
    """A pattern of Python as one of ECMAScript."""
    return "^" + text.replace(r"\Z", "$")


def _definitions() -> Schema:
    return {
        "text": _TEXT,
        "expression": _EXPRESSION,
        "boolean": _any({"type": "boolean"}, _ref("expression")),
        "number": _any({"type": "number"}, _ref("expression")),
        "texts": _any(_names(_ref("text")), _ref("expression")),
        "identifier": {
            "pattern": _pattern("(?!__)" + IDENTIFIER.pattern),
            "maxLength": IDENTIFIER_CHARACTERS_MAX - 1,
        },
        "shell": {**_FULL_TEXT, "examples": [*step_section.BUILT_IN_SHELLS, "perl {0}"]},
        "permissions": _permissions(),
        "concurrency": _concurrency(),
        "defaults": _defaults(),
        "job": _job(),
        "calling-job": _calling_job(),
        "step": _step(),
        "container": _image("container", job.CONTAINER_KEYS),
        "service": _image("service", job.SERVICE_KEYS),
        "call-input": _input(call=True),
        "dispatch-input": _input(call=False),
    }


# Sections


def _workflow() -> dict[str, Schema]:
    jobs = _names(
        {
            "if": _calls(),
            "then": _ref("calling-job"),
            "else": _ref("job"),
        },
        _ref("identifier"),
    )
    return {
        "name": _ref("text"),
        "description": _ref("text"),
        "run-name": _ref("text"),
        "on": _triggers(),
        "permissions": _ref("permissions"),
        "env": _ref("texts"),
        "defaults": _ref("defaults"),
        "concurrency": _ref("concurrency"),
        "jobs": {**jobs, "minProperties": 1},
    }


def _calls() -> Schema:
    """A job with `uses`; or one with neither runs-on nor steps, but with or secrets."""
    need = {key: {"required": [key]} for key in ("uses", "runs-on", "steps", "with", "secrets")}
    runs = _any(need["runs-on"], need["steps"])
    passes = _any(need["with"], need["secrets"])
    return _any(need["uses"], {"allOf": [{"not": runs}, passes]})


def _triggers() -> Schema:
    name: Schema = {"enum": sorted(EVENTS)}
    return _any(
        name,
        {"type": "array", "items": _any(name, _ref("expression")), "minItems": 1},
        {
            "type": "object",
            "properties": {event: _event(rule) for event, rule in sorted(EVENTS.items())},
            "additionalProperties": False,
            "minProperties": 1,
        },
    )


def _event(rule: EventRule) -> Schema:
    about = f"Works on: {rule.sha} (source of the workflow: {rule.source})."
    if rule.event == "schedule":
        entry = _object(
            "schedule",
            on.SCHEDULE_KEYS,
            {"cron": _FULL_TEXT, "timezone": _FULL_TEXT},
            required=("cron",),
        )
        return {"type": "array", "items": entry, "minItems": 1, "description": about}
    if rule.event == "workflow_dispatch":
        inputs = _nothing_or(_names(_any({"type": "null"}, _ref("dispatch-input"))))
        section = _object("workflow_dispatch", on.DISPATCH_KEYS, {"inputs": inputs})
        section["additionalProperties"] = True
    elif rule.event == "workflow_call":
        section = _object("workflow_call", on.CALL_KEYS, _call())
    elif rule.keys:
        filters = {key: _filter(rule, key) for key in rule.keys}
        section = _object("event", rule.keys, filters)
        both = [
            {"not": {"required": list(pair)}} for pair in on.EXCLUSIVE if set(pair) <= rule.keys
        ]
        section |= {"allOf": both} if both else {}
    else:
        return {"type": "null", "description": about}
    return {**_nothing_or(section), "description": about}


def _filter(rule: EventRule, key: str) -> Schema:
    if key != "types" or rule.free_types:
        return _one_or_more(_FULL_TEXT)
    return _one_or_more({"enum": list(rule.types)})


def _nothing_or(schema: Schema) -> Schema:
    return _any({"type": "null"}, schema)


def _call() -> dict[str, Schema]:
    secret = _object(
        "secret",
        on.SECRET_KEYS,
        {"description": _ref("text"), "required": _ref("boolean")},
    )
    output = _object(
        "output",
        on.OUTPUT_KEYS,
        {"description": _ref("text"), "value": _ref("text")},
        required=("value",),
    )
    return {
        "inputs": _names(_ref("call-input")),
        "secrets": _names(_nothing_or(secret)),
        "outputs": _names(output),
    }


def _input(*, call: bool) -> Schema:
    keys = on.CALL_INPUT_KEYS if call else on.DISPATCH_INPUT_KEYS
    schemas: dict[str, Schema] = {
        "description": _ref("text"),
        "type": {"enum": list(on.CALL_TYPES if call else on.DISPATCH_TYPES)},
        "required": _ref("boolean"),
        "default": _ref("text"),
    }
    if call:
        return _object("input", keys, schemas, required=("type",))
    schemas["options"] = {"type": "array", "items": _ref("text"), "minItems": 1}
    chooses = {"properties": {"type": {"const": "choice"}}, "required": ["type"]}
    return {
        **_object("input", keys, schemas),
        "if": chooses,
        "then": {"required": ["options"]},
        "else": {"not": {"required": ["options"]}},
    }


def _permissions() -> Schema:
    levels = {
        scope: {"enum": list(levels)} for scope, levels in sorted(shared.PERMISSION_LEVELS.items())
    }
    return _any(
        {"enum": list(shared.PERMISSIONS_FOR_ALL)},
        {"type": "object", "properties": levels, "additionalProperties": False},
    )


def _concurrency() -> Schema:
    schemas = {
        "group": _FULL_TEXT,
        "cancel-in-progress": _ref("boolean"),
        "queue": {"enum": list(shared.QUEUES)},
    }
    section = _object("concurrency", shared.CONCURRENCY_KEYS, schemas, required=("group",))
    keeps_all = {"queue": {"const": "max"}, "cancel-in-progress": {"const": True}}
    section["not"] = {"properties": keeps_all, "required": list(keeps_all)}
    return _any(_TEXT, section)


def _defaults() -> Schema:
    run = _object(
        "defaults.run",
        shared.DEFAULTS_RUN_KEYS,
        {"shell": _ref("shell"), "working-directory": _FULL_TEXT},
    )
    return _object("defaults", shared.DEFAULTS_KEYS, {"run": run})


def _either() -> dict[str, Schema]:
    """What both kinds of jobs have."""
    return {
        "name": _ref("text"),
        "needs": _one_or_more(_FULL_TEXT),
        "if": _ref("text"),
        "permissions": _ref("permissions"),
        "concurrency": _ref("concurrency"),
        "strategy": _strategy(),
    }


def _job() -> Schema:
    services = _any(_names(_any(_FULL_TEXT, _ref("service"))), _ref("expression"))
    schemas = {
        **_either(),
        **_extensions(),
        "runs-on": _runs_on(),
        "timeout-minutes": _ref("number"),
        "cancel-timeout-minutes": _ref("number"),
        "continue-on-error": _ref("boolean"),
        "container": _any(_ref("text"), _ref("container")),
        "services": services,
        "env": _ref("texts"),
        "environment": _environment(),
        "outputs": _names(_ref("text")),
        "defaults": _ref("defaults"),
        "steps": {"type": "array", "items": _ref("step")},
        "snapshot": _snapshot(),
    }
    return _object("job", job.JOB_KEYS, schemas, required=("runs-on",))


def _calling_job() -> Schema:
    paths = [_pattern(job.LOCAL_CALL.pattern), _pattern(job.REMOTE_CALL.pattern)]
    uses = _any(*({"type": "string", "pattern": path} for path in paths), _ref("expression"))
    schemas = {
        **_either(),
        "uses": uses,
        "with": _names(_ref("text")),
        "secrets": _any({"const": "inherit"}, _names(_ref("text"))),
    }
    return _object("job", job.CALL_KEYS, schemas, required=("uses",))


def _runs_on() -> Schema:
    labels = _one_or_more(_FULL_TEXT, minItems=1)
    group = _object("runs-on", job.RUNS_ON_KEYS, {"group": _FULL_TEXT, "labels": labels})
    return _any(*labels["anyOf"], {**group, "minProperties": 1})


def _environment() -> Schema:
    schemas = {"name": _ref("text"), "url": _ref("text"), "deployment": _ref("boolean")}
    return _any(_TEXT, _object("environment", job.ENVIRONMENT_KEYS, schemas, required=("name",)))


def _snapshot() -> Schema:
    schemas = {"image-name": _FULL_TEXT, "version": _FULL_TEXT, "if": _ref("text")}
    return _any(
        _FULL_TEXT, _object("snapshot", job.SNAPSHOT_KEYS, schemas, required=("image-name",))
    )


def _image(section: str, keys: frozenset[str]) -> Schema:
    credentials = _object(
        "credentials", job.CREDENTIALS_KEYS, dict.fromkeys(job.CREDENTIALS_KEYS, _FULL_TEXT)
    )
    schemas: dict[str, Schema] = {key: _ref("text") for key in keys}
    schemas |= {
        "image": _FULL_TEXT,
        "env": _ref("texts"),
        "ports": _any({"type": "array", "items": _FULL_TEXT}, _ref("expression")),
        "volumes": _any({"type": "array", "items": _FULL_TEXT}, _ref("expression")),
        "credentials": _any(credentials, _ref("expression")),
    }
    return _object(section, keys, schemas, required=("image",))


def _strategy() -> Schema:
    items = _any({"type": "array", "items": _any({"type": "object"}, _EXPRESSION)}, _EXPRESSION)
    matrix = {
        "type": "object",
        "properties": {"include": items, "exclude": items},
        "additionalProperties": _any({"type": "array", "minItems": 1}, _ref("expression")),
    }
    schemas = {
        "matrix": _any(matrix, _ref("expression")),
        "fail-fast": _ref("boolean"),
        "max-parallel": _ref("number"),
    }
    return _any(_ref("expression"), _object("strategy", strategy_section.STRATEGY_KEYS, schemas))


def _extensions() -> dict[str, Schema]:
    times = {"type": "integer", "minimum": 0, "maximum": ext.RETRIES_MAX}
    seconds = {"type": "number", "minimum": 0, "maximum": ext.BACKOFF_SECONDS_MAX}
    words = {"type": "string", "pattern": _pattern(ext.DURATION.pattern)}
    causes = _one_or_more({"enum": list(ext.RETRY_CAUSES)}, minItems=1)
    retry = {"max": times, "backoff": _any(seconds, words), "on": causes}
    most = ext.PRIORITY_MAX
    return {
        "retry": _any(times, _object("retry", ext.RETRY_KEYS, retry)),
        "queue-timeout-minutes": {"type": "number", "exclusiveMinimum": 0},
        "priority": {"type": "integer", "minimum": -most, "maximum": most},
        "pool": {"type": "string", "minLength": 1},
    }


def _step() -> Schema:
    common = {
        "id": _any(_ref("identifier"), {"type": "null"}),
        "if": _ref("text"),
        "name": _ref("text"),
        "env": _names(_ref("text")),
        "continue-on-error": _ref("boolean"),
        "timeout-minutes": _ref("number"),
    }
    action = _any(
        {"type": "string", "pattern": _pattern(step_section.ACTION.pattern)},
        {"type": "string", "pattern": r"^(\./|\.\\|docker://)"},
        _ref("expression"),
    )
    uses = _object(
        "step",
        step_section.USES_KEYS,
        {**common, "uses": action, "with": _names(_ref("text"))},
        required=("uses",),
    )
    runs = _object(
        "step",
        step_section.RUN_KEYS,
        {
            **common,
            "run": _ref("text"),
            "shell": _ref("shell"),
            "working-directory": _ref("text"),
        },
        required=("run",),
    )
    return {"if": {"required": ["uses"]}, "then": uses, "else": runs}
