"""What two versions of a schema must keep: checks that return sentences, one a problem.

The rule is FULL_TRANSITIVE: every version reads every other, older and newer. `avro.compatibility`
does not see a changed logical type, so this module has a lint of its own beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType


def incompatibilities(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return why records of one version could not be read with the other, in both directions."""
    return [
        *_unreadable(reader=one, writer=other),
        *_unreadable(reader=other, writer=one),
        *_changed_logical_types(one, other),
    ]


def _unreadable(*, reader: Mapping[str, Any], writer: Mapping[str, Any]) -> list[str]:
    checker: Any = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(
        avro.schema.parse(json.dumps(reader)), avro.schema.parse(json.dumps(writer))
    )
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return [f"{place}: {message}" for place, message in zip(
        sorted(result.locations), sorted(result.messages), strict=False
    )] or ["not compatible"]  # fmt: skip


def _changed_logical_types(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    before, after = dict(logical_types(one)), dict(logical_types(other))
    return [
        f"{place}: logical type {before[place]} became {after[place]}"
        for place in sorted(before.keys() & after.keys())
        if before[place] != after[place]
    ]


def logical_types(schema: Any, place: str = "") -> Iterator[tuple[str, str | None]]:
    """Yield each primitive type's place with its logical type, None where it has none."""
    if isinstance(schema, str):
        yield place, None
    elif isinstance(schema, list):
        for branch in schema:
            if branch != "null":
                yield from logical_types(branch, place)
    elif schema["type"] == "record":
        for field in schema["fields"]:
            yield from logical_types(field["type"], f"{place}/{field['name']}")
    elif schema["type"] == "array":
        yield from logical_types(schema["items"], f"{place}[]")
    elif schema["type"] == "map":
        yield from logical_types(schema["values"], f"{place}{{}}")
    elif isinstance(schema["type"], str):
        yield place, schema.get("logicalType")
    else:
        yield from logical_types(schema["type"], place)


def lint(schema: Any, place: str = "") -> list[str]:
    """Return what would make a later version impossible: no default, unions that can't grow."""
    if isinstance(schema, list):
        grows = schema[0] == "null" and len(schema) == 2
        found = [] if grows else [f"{place}: a union other than null and one type can't grow"]
        return found + [problem for branch in schema for problem in lint(branch, place)]
    if not isinstance(schema, dict):
        return []
    if schema["type"] == "record":
        return [problem for field in schema["fields"] for problem in _lint_field(field, place)]
    if schema["type"] == "enum":
        return [] if "default" in schema else [f"{place}: an enum without a default symbol"]
    parts = [schema[name] for name in ("items", "values", "type") if name in schema]
    return [problem for part in parts for problem in lint(part, place)]


def _lint_field(field: Mapping[str, Any], place: str) -> list[str]:
    where = f"{place}/{field['name']}"
    missing = [] if "default" in field else [f"{where}: has no default"]
    return missing + lint(field["type"], where)


def lock_problems(released: str, current: str) -> list[str]:
    """Return what a lock file did to lines that were released: they stay as they are, in place."""
    before = [line for line in released.splitlines() if line and not line.startswith("#")]
    after = [line for line in current.splitlines() if line and not line.startswith("#")]
    problems = [
        f"line {number}: {old!r} became {new!r}"
        for number, (old, new) in enumerate(zip(before, after, strict=False), 1)
        if old != new
    ]
    problems += [f"line {len(after) + 1} on: {len(before) - len(after)} released lines are gone"
                 for _ in range(len(after) < len(before))]  # fmt: skip
    return problems
