"""Avro binary straight from typed records and back: one function a schema, made once.

The bytes are those of any Avro library (property tests compare them with fastavro's); going
without dictionaries saves more than half of the time of an event.
Source: Avro 1.11 specification, "Binary Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any

Out = list[bytes]
Write = Callable[[Out, Any], None]

_SMALL = 1 << 13


@lru_cache(maxsize=4096)  # instants repeat within a batch
def _varint(number: int) -> bytes:
    """Return a long: zigzag, then 7 bits a byte, the lowest first."""
    left = (number << 1) ^ (number >> 63)
    made = bytearray()
    while left > 0x7F:  # noqa: PLR2004 - the specification's 7 bits
        made.append(left & 0x7F | 0x80)
        left >>= 7
    made.append(left)
    return bytes(made)


_LENGTHS = tuple(_varint(number) for number in range(_SMALL))


def _long(out: Out, value: int) -> None:
    out.append(_LENGTHS[value] if 0 <= value < _SMALL else _varint(value))


def _bytes(out: Out, value: bytes) -> None:
    _long(out, len(value))
    out.append(value)


def _string(out: Out, value: str) -> None:
    encoded = value.encode()
    size = len(encoded)
    out.append((_LENGTHS[size] if size < _SMALL else _varint(size)) + encoded)


def _boolean(out: Out, value: bool) -> None:  # noqa: FBT001 - a value, not a switch
    out.append(b"\x01" if value else b"\x00")


def _double(out: Out, value: float) -> None:
    out.append(struct.pack("<d", value))


def text(value: str) -> bytes:
    """Return a string as Avro writes it."""
    out: Out = []
    _string(out, value)
    return out[0]


_PRIMITIVES: dict[str, Write] = {
    "string": _string,
    "long": _long,
    "bytes": _bytes,
    "boolean": _boolean,
    "double": _double,
}


def writer_of(schema: Any, definitions: Mapping[str, Any]) -> Write:
    """Return the writer of a schema's values.

    Handles what `schemas.derive` makes: primitives, records, arrays, string maps and unions of
    null with one type. Raises ValueError for anything else.
    """
    if isinstance(schema, str):
        if schema in _PRIMITIVES:
            return _PRIMITIVES[schema]
        return writer_of(definitions[schema], definitions)
    if isinstance(schema, list):
        null, arm = schema
        if null != "null":
            raise ValueError(f"a union must begin with null: {schema}")
        return _optional(writer_of(arm, definitions))
    if schema["type"] == "record":
        return record_writer(schema["fields"], definitions)
    if schema["type"] == "array":
        return _array(writer_of(schema["items"], definitions))
    if schema["type"] == "map":
        return _map(writer_of(schema["values"], definitions))
    return writer_of(schema["type"], definitions)


def record_writer(fields: list[Mapping[str, Any]], definitions: Mapping[str, Any]) -> Write:
    """Return the writer of a record from an object with an attribute a field."""
    writers = tuple(writer_of(field["type"], definitions) for field in fields)
    if not fields:
        return lambda _out, _value: None
    names = [field["name"] for field in fields]
    get = attrgetter(*names)
    if len(names) == 1:
        [only] = writers
        return lambda out, value: only(out, get(value))

    def write(out: Out, value: Any) -> None:
        for one, item in zip(writers, get(value), strict=True):
            one(out, item)

    return write


def _optional(inner: Write) -> Write:
    def write(out: Out, value: Any) -> None:
        if value is None:
            out.append(b"\x00")
        else:
            out.append(b"\x02")
            inner(out, value)

    return write


def _array(inner: Write) -> Write:
    def write(out: Out, value: Any) -> None:
        if value:
            _long(out, len(value))
            for item in value:
                inner(out, item)
        out.append(b"\x00")

    return write


def _map(inner: Write) -> Write:
    def write(out: Out, value: Mapping[str, Any]) -> None:
        if value:
            _long(out, len(value))
            for key, item in value.items():
                _string(out, key)
                inner(out, item)
        out.append(b"\x00")

    return write


# --------------------------------------------------------------------------- reading

#: Takes the bytes and a position; returns the value and the position behind it. Bytes that are
#: not of the schema raise ValueError or IndexError, or leave the position behind the end.
Read = Callable[[bytes, int], tuple[Any, int]]


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """Return a long and the position behind it."""
    byte = data[at]
    at += 1
    if byte < 0x80:  # noqa: PLR2004 - most are one byte
        return (byte >> 1) ^ -(byte & 1), at
    number, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            break
        shift += 7
        if shift > _SHIFT_MAX:
            raise ValueError("a number of more than 64 bits")
    return (number >> 1) ^ -(number & 1), at


_SHIFT_MAX = 63


def read_string(data: bytes, at: int) -> tuple[str, int]:
    """Return a string and the position behind it."""
    byte = data[at]
    if byte < 0x80 and not byte & 1:  # noqa: PLR2004 - a length of one byte: most strings
        at += 1
        end = at + (byte >> 1)
        return data[at:end].decode(), end
    size, at = read_long(data, at)
    if size < 0:
        raise ValueError("a length below 0")
    end = at + size
    return data[at:end].decode(), end


def _read_optional_string(data: bytes, at: int) -> tuple[str | None, int]:
    """Return what most columns are, without a call for each of its parts."""
    arm = data[at]
    if arm == 0:
        return None, at + 1
    if arm != 2:  # noqa: PLR2004 - index 1, zigzag
        raise ValueError("a union's arm that does not exist")
    byte = data[at + 1]
    if byte < 0x80 and not byte & 1:  # noqa: PLR2004
        at += 2
        end = at + (byte >> 1)
        return data[at:end].decode(), end
    return read_string(data, at + 1)


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_long(data, at)
    if size < 0:
        raise ValueError("a length below 0")
    end = at + size
    return data[at:end], end


def _read_boolean(data: bytes, at: int) -> tuple[bool, int]:
    byte = data[at]
    if byte > 1:
        raise ValueError("a boolean that is neither 0 nor 1")
    return byte == 1, at + 1


def _read_double(data: bytes, at: int) -> tuple[float, int]:
    if len(data) < at + 8:
        raise ValueError("a double that is cut off")
    return struct.unpack_from("<d", data, at)[0], at + 8


_READERS: dict[str, Read] = {
    "string": read_string,
    "long": read_long,
    "bytes": _read_bytes,
    "boolean": _read_boolean,
    "double": _read_double,
}


def reader_of(
    schema: Any, definitions: Mapping[str, Any], make: Callable[[str, list[str]], Make]
) -> Read:
    """Return the reader of a schema's values; `make` gives the constructor of a record.

    `make(name, fields)` returns what turns the fields' values, in order, into an object.
    """
    if isinstance(schema, str):
        if schema in _READERS:
            return _READERS[schema]
        return reader_of(definitions[schema], definitions, make)
    if isinstance(schema, list):
        if schema[1] == "string":
            return _read_optional_string
        return _read_optional(reader_of(schema[1], definitions, make))
    if schema["type"] == "record":
        names = [field["name"] for field in schema["fields"]]
        readers = tuple(reader_of(f["type"], definitions, make) for f in schema["fields"])
        return _read_record(readers, make(schema["name"], names))
    if schema["type"] == "array":
        return _read_array(reader_of(schema["items"], definitions, make))
    if schema["type"] == "map":
        return _read_map(reader_of(schema["values"], definitions, make))
    return reader_of(schema["type"], definitions, make)


Make = Callable[[list[Any]], Any]


def _read_optional(inner: Read) -> Read:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        arm = data[at]
        if arm == 0:
            return None, at + 1
        if arm != 2:  # noqa: PLR2004 - index 1, zigzag
            raise ValueError("a union's arm that does not exist")
        return inner(data, at + 1)

    return read


def _read_record(readers: tuple[Read, ...], make: Make) -> Read:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        values = []
        for one in readers:
            value, at = one(data, at)
            values.append(value)
        return make(values), at

    return read


def _blocks(data: bytes, at: int) -> tuple[int, int]:
    """Return how many items follow; a negative count is followed by the block's size."""
    count, at = read_long(data, at)
    if count < 0:
        _, at = read_long(data, at)
        count = -count
    if count > len(data) - at:
        raise ValueError("more items than bytes")
    return count, at


def _read_array(inner: Read) -> Read:
    def read(data: bytes, at: int) -> tuple[tuple[Any, ...], int]:
        items: list[Any] = []
        while True:
            count, at = _blocks(data, at)
            if count == 0:
                return tuple(items), at
            for _ in range(count):
                item, at = inner(data, at)
                items.append(item)

    return read


def _read_map(inner: Read) -> Read:
    def read(data: bytes, at: int) -> tuple[dict[str, Any], int]:
        items: dict[str, Any] = {}
        while True:
            count, at = _blocks(data, at)
            if count == 0:
                return items, at
            for _ in range(count):
                key, at = read_string(data, at)
                items[key], at = inner(data, at)

    return read
