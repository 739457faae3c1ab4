"""Hypothesis strategies for every kind of record, derived from its class."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from hypothesis import strategies as st

LONG_MAX = 2**63 - 1
#: What Avro's logical type can stand for in Python: up to the year 9999.
MILLIS_MAX = 253_402_300_799_999

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
longs = st.integers(-LONG_MAX - 1, LONG_MAX)
millis = st.integers(0, MILLIS_MAX)

_PRIMITIVES: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: longs,
    bool: st.booleans(),
    bytes: st.binary(max_size=60),
    float: st.floats(allow_nan=False),
}


_known: dict[type, st.SearchStrategy[Any]] = {}


def records_of(kind: type) -> st.SearchStrategy[Any]:
    """Return a strategy for instances of a frozen record class, every field of it set."""
    if kind not in _known:
        _known[kind] = _records(kind)
    return _known[kind]


def _records(kind: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.name: _values(hints[field.name]) for field in dataclasses.fields(kind)}
    return st.builds(kind, **fields)


def _values(hint: Any) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return millis if "timestamp-millis" in arguments else _values(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(st.none() if a is type(None) else _values(a) for a in arguments))
    if origin is tuple:
        return st.lists(_values(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(_values(arguments[0]), _values(arguments[1]), max_size=3)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return records_of(hint)
    return _PRIMITIVES[hint]
