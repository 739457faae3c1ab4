"""The Avro schema that typed classes stand for; a test holds it equal to the committed `.avsc`.

One schema a topic: a record of the common columns, a string `kind`, and one nullable branch record
per kind. Only additions with a default are made to it, so every version reads every other.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any

AvroType = str | dict[str, Any] | list[Any]

_PRIMITIVES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "long",
    float: "double",
    bytes: "bytes",
}
_CAMEL = re.compile(r"(?<!^)(?=[A-Z])")


def branch_name(kind: str) -> str:
    """Return the column of a kind: JobStarted -> job_started."""
    return _CAMEL.sub("_", kind).lower()


def topic_schema(
    name: str, base: type, kinds: tuple[type, ...], *, namespace: str = "tailrace"
) -> dict[str, Any]:
    """Return the schema of a topic whose records are `kinds`, with `base`'s fields as columns.

    Raises TypeError, naming class and field, for an annotation that has no Avro type.
    """
    known: set[str] = set()
    columns = _fields(base, dataclasses.fields(base), known)
    own = {field.name for field in dataclasses.fields(base)}
    branches = []
    for kind in kinds:
        extra = tuple(f for f in dataclasses.fields(kind) if f.name not in own)
        record = {
            "type": "record",
            "name": kind.__name__,
            "doc": _first_sentence(kind),
            "fields": _fields(kind, extra, known),
        }
        branches.append(
            {"name": branch_name(kind.__name__), "type": ["null", record], "default": None}
        )
    return {
        "type": "record",
        "name": name,
        "namespace": namespace,
        "doc": _first_sentence(base),
        "fields": [{"name": "kind", "type": "string", "default": ""}, *columns, *branches],
    }


def _first_sentence(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def _fields(
    cls: type, fields: tuple[dataclasses.Field[Any], ...], known: set[str]
) -> list[dict[str, Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    made = []
    for field in fields:
        try:
            avro = _avro_type(hints[field.name], known)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.{field.name}: {error}") from None
        made.append({"name": field.name, "type": avro, "default": _default(field, avro)})
    return made


def _default(field: dataclasses.Field[Any], avro: AvroType) -> object:
    """Return the field's default; a required field gets its type's empty value.

    Every column has a default, so that a field can be added and removed in both directions.
    """
    if field.default is not dataclasses.MISSING:
        value = field.default
        return list(value) if isinstance(value, tuple) else value
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if isinstance(avro, list):
        return None
    kind = avro["type"] if isinstance(avro, dict) else avro
    empty: dict[str, object] = {
        "string": "", "bytes": "", "boolean": False, "long": 0, "double": 0.0,
        "array": [], "map": {},
    }  # fmt: skip
    return empty[str(kind)]


def _avro_type(hint: Any, known: set[str]) -> AvroType:
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        base, logical = typing.get_args(hint)
        return {"type": _avro_type(base, known), "logicalType": logical}
    if origin in (types.UnionType, typing.Union):
        arms = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        if len(arms) != 1:
            raise TypeError(f"a union of {arms} is not written; only `X | None` is")
        return ["null", _avro_type(arms[0], known)]
    if origin is tuple:
        return {"type": "array", "items": _avro_type(typing.get_args(hint)[0], known)}
    if origin is dict:
        return {"type": "map", "values": _avro_type(typing.get_args(hint)[1], known)}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ in known:
            return hint.__name__
        known.add(hint.__name__)
        fields = _fields(hint, dataclasses.fields(hint), known)
        return {
            "type": "record",
            "name": hint.__name__,
            "doc": _first_sentence(hint),
            "fields": fields,
        }
    if hint in _PRIMITIVES:
        return _PRIMITIVES[hint]
    raise TypeError(f"{hint!r} has no Avro type here")
