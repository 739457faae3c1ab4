"""Bytes to typed records and back: the only place that knows the wire format.

A value is `0x00`, a 4-byte big-endian schema id and Avro binary, as Confluent's clients read it.
Ids are lines of the append-only `avro/avro.lock`; every version ever written stays readable.
CloudEvents attributes and the W3C trace context travel in headers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from operator import attrgetter
from typing import Any, Generic, TypeVar

import fastavro
from fastavro.schema import parse_schema

from schemas import binary, events, lanes, streams
from schemas.derive import branch_name, topic_schema

R = TypeVar("R")
Headers = list[tuple[str, bytes]]

_MAGIC = 0
_TYPE_KEYS = ("type", "items", "values")
_PREFIX_BYTES = 5
_PRESENT = b"\x02"  # union index 1, zigzag
_NULLS = bytes(1024)
_ID_NAMESPACE = b"tailrace event id\x00"


class CodecError(Exception):
    """A record's bytes are not what its topic carries; the message says which part is wrong."""


class UnknownSchemaError(CodecError):
    """The schema id is in no lock file of this version: a newer Tailrace wrote the record."""

    def __init__(self, schema_id: int) -> None:
        """Name the id that is missing."""
        super().__init__(
            f"schema id {schema_id} is unknown here: the record was written by a newer version; "
            "upgrade this process, it will go on where it stopped"
        )
        self.schema_id = schema_id


class UnknownKindError(CodecError):
    """The record is of a kind that this version has no class for."""

    def __init__(self, kind: str) -> None:
        """Name the kind."""
        super().__init__(f"record kind {kind!r} is unknown here")
        self.kind = kind


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LockedSchema:
    """One line of the lock file."""

    schema_id: int
    subject: str
    version: int
    file: str
    sha256: str


def event_id(kind: str, *parts: object) -> str:
    """Return the id of the fact `kind` about `parts`: a UUIDv5 that any repeat gives again."""
    text = "\x1f".join((kind, *map(str, parts)))
    digest = bytearray(hashlib.sha1(_ID_NAMESPACE + text.encode(), usedforsecurity=False).digest())
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    h = digest[:16].hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def run_planned_id(run_id: str, run_attempt: int = 1) -> str:
    """Return the id of a run's RunPlanned: the cause of what people ask of the run."""
    return event_id("RunPlanned", run_id, run_attempt)


@lru_cache(maxsize=1)
def locked_schemas() -> Mapping[int, LockedSchema]:
    """Return the lock file's lines by schema id."""
    lines = _avro_text("avro.lock").splitlines()
    rows = (line.split() for line in lines if line and not line.startswith("#"))
    return {
        int(schema_id): LockedSchema(
            schema_id=int(schema_id), subject=subject, version=int(version), file=file, sha256=sha
        )
        for schema_id, subject, version, file, sha in rows
    }


def schema_text(schema_id: int) -> str:
    """Return the `.avsc` text of an id; raises UnknownSchemaError."""
    locked = locked_schemas().get(schema_id)
    if locked is None:
        raise UnknownSchemaError(schema_id)
    return _avro_text(locked.file)


def _avro_text(name: str) -> str:
    return resources.files("schemas").joinpath("avro", name).read_text("utf-8")


class TopicCodec(Generic[R]):
    """Encodes and decodes the records of one topic, each kind as its own class.

    Reading a record of an older version gives fields that it lacks their defaults; reading one of
    a newer version drops what this version does not know.
    """

    def __init__(self, subject: str, name: str, base: type, kinds: Sequence[type[R]]) -> None:
        """Compile the converters of `kinds`; the newest locked version is the one written."""
        self.subject = subject
        self.kinds = tuple(kinds)
        self.base = base
        self._name = name
        self._columns = tuple(field.name for field in dataclasses.fields(base))
        self._encoders = {kind: _Branch(kind, self._columns) for kind in kinds}
        self._by_name = {kind.__name__: branch for kind, branch in self._encoders.items()}
        self._writer: _Version | None = None
        self._readers: dict[int, _Version] = {}

    def derived_schema(self) -> dict[str, Any]:
        """Return the schema that the classes stand for today."""
        return topic_schema(self._name, self.base, self.kinds)

    def encode(self, record: R, *, occurred_at: int | None = None) -> bytes:
        """Return the wire bytes; `occurred_at` (ms) stands in for the record's own.

        Avro writes a record as its fields in order and a null branch as one zero byte, so the
        columns and the one branch that is set are written and the rest is filled in.
        """
        writer = self._writer or self._load_writer()
        branch = self._encoders[type(record)]
        index = writer.index[branch.column]
        out = [writer.prefix, branch.kind_bytes]
        if occurred_at is None:
            writer.write_columns(out, record)
        else:
            writer.write_columns_at(out, record, occurred_at)
        out.append(_NULLS[:index])
        out.append(_PRESENT)
        writer.branch_writer(index)(out, record)
        out.append(_NULLS[: len(writer.branches) - index - 1])
        return b"".join(out)

    def decode(self, value: bytes) -> R:
        """Return the typed record; CodecError says what is wrong with the bytes."""
        datum, column, body = self._read(value)
        branch = self._by_name.get(datum["kind"])
        if branch is None:
            raise UnknownKindError(datum["kind"])
        if branch.column != column:
            raise CodecError(
                f"record of kind {datum['kind']} carries the branch {column or 'none'}, "
                f"not {branch.column}"
            )
        return branch.from_datum(datum, body)  # type: ignore[no-any-return]

    def to_datum(self, value: bytes) -> dict[str, Any]:
        """Return the record as Avro data: its columns and, by its name, the branch that is set."""
        datum, column, body = self._read(value)
        return {**datum, column: body}

    def _read(self, value: bytes) -> tuple[dict[str, Any], str, dict[str, Any]]:
        if len(value) <= _PREFIX_BYTES or value[0] != _MAGIC:
            raise CodecError(
                f"not a record of {self.subject}: expected 0x00 and a 4-byte schema id, "
                f"found {value[:5].hex() or 'nothing'} ({len(value)} bytes)"
            )
        schema_id = int.from_bytes(value[1:5], "big")
        reader = self._readers.get(schema_id) or self._load_version(schema_id)
        stream = io.BytesIO(value)
        stream.seek(_PREFIX_BYTES)
        try:
            datum: Any = fastavro.schemaless_reader(stream, reader.columns, None)
            start = stream.tell()
            index = value.find(_PRESENT, start) - start
            if not 0 <= index < len(reader.branches) or value[start : start + index].strip(b"\0"):
                raise ValueError("no branch is set")  # noqa: TRY301 - one place words the error
            stream.seek(start + index + 1)
            body: Any = fastavro.schemaless_reader(stream, reader.branches[index], None)
            rest = value[stream.tell() :]
            if rest != _NULLS[: len(reader.branches) - index - 1]:
                raise ValueError(f"{len(rest)} bytes after the branch")  # noqa: TRY301
        except Exception as error:
            raise CodecError(
                f"bytes of a {self.subject} record (schema id {schema_id}) are damaged: {error!r}"
            ) from error
        return datum, reader.names[index], body

    def _load_writer(self) -> _Version:
        newest = max(
            (row for row in locked_schemas().values() if row.subject == self.subject),
            key=lambda row: row.version,
        )
        self._writer = self._load_version(newest.schema_id)
        return self._writer

    def _load_version(self, schema_id: int) -> _Version:
        locked = locked_schemas().get(schema_id)
        if locked is None:
            raise UnknownSchemaError(schema_id)
        if locked.subject != self.subject:
            raise CodecError(
                f"schema id {schema_id} belongs to {locked.subject}, not to {self.subject}"
            )
        self._readers[schema_id] = _Version(schema_id, json.loads(_avro_text(locked.file)))
        return self._readers[schema_id]


class _Version:
    """One schema version, taken apart into its columns and its branches.

    Each part is made self-contained: fastavro copies the table of named types with every call,
    and with one table for all kinds that copy would cost more than the record.
    """

    def __init__(self, schema_id: int, schema: dict[str, Any]) -> None:
        self.prefix = bytes([_MAGIC]) + schema_id.to_bytes(4, "big")
        plain = _without_logical_types(schema)
        definitions = dict(_definitions(plain))
        columns = [field for field in plain["fields"] if not _is_branch(field)]
        branches = [field for field in plain["fields"] if _is_branch(field)]
        whole = {**plain, "name": "Columns", "fields": columns}
        self.columns = parse_schema(_self_contained(whole, definitions, set()), {})
        self.branches = [
            parse_schema(_self_contained(field["type"][1], definitions, set()), {})
            for field in branches
        ]
        self.names = [field["name"] for field in branches]
        self.index = {name: number for number, name in enumerate(self.names)}
        self._definitions = definitions
        self._branch_fields = [field["type"][1]["fields"] for field in branches]
        self._branch_writers: dict[int, binary.Write] = {}
        plain_columns = [field for field in columns if field["name"] != "kind"]
        if columns[0]["name"] != "kind":
            raise CodecError(f"schema id {schema_id}: `kind` is not the first column")
        names = [field["name"] for field in plain_columns]
        self.write_columns = binary.record_writer(plain_columns, definitions)
        self._columns_get = attrgetter(*names)
        self._columns_write = tuple(
            binary.writer_of(field["type"], definitions) for field in plain_columns
        )
        self._at = names.index("occurred_at") if "occurred_at" in names else -1

    def write_columns_at(self, out: list[bytes], record: Any, occurred_at: int) -> None:
        """Write the columns with another instant than the record's own."""
        values = list(self._columns_get(record))
        if self._at >= 0:
            values[self._at] = occurred_at
        for write, value in zip(self._columns_write, values, strict=True):
            write(out, value)

    def branch_writer(self, index: int) -> binary.Write:
        """Return the writer of a branch; made when a kind is first written."""
        writer = self._branch_writers.get(index)
        if writer is None:
            fields = self._branch_fields[index]
            writer = self._branch_writers[index] = binary.record_writer(fields, self._definitions)
        return writer


def _definitions(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield every record that the schema defines, by its name."""
    if isinstance(schema, dict):
        if schema.get("type") == "record":
            yield schema["name"], schema
        for value in schema.values():
            yield from _definitions(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _definitions(item)


def _self_contained(schema: Any, definitions: Mapping[str, Any], seen: set[str]) -> Any:
    """Return a part of a schema with each named type defined where it is first used."""
    if isinstance(schema, str) and schema in definitions and schema not in seen:
        return _self_contained(definitions[schema], definitions, seen)
    if isinstance(schema, list):
        return [_self_contained(item, definitions, seen) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "record":
        if schema["name"] in seen:
            return schema["name"]
        seen.add(schema["name"])
        fields = [
            {**field, "type": _self_contained(field["type"], definitions, seen)}
            for field in schema["fields"]
        ]
        return {**schema, "fields": fields}
    return {
        key: _self_contained(value, definitions, seen)
        if key in ("type", "items", "values")
        else value
        for key, value in schema.items()
    }


def _is_branch(field: Mapping[str, Any]) -> bool:
    kind = field["type"]
    return isinstance(kind, list) and isinstance(kind[1], dict) and kind[1]["type"] == "record"


def _without_logical_types(schema: Any) -> Any:
    """Drop logical types: the bytes are the same, and instants stay milliseconds."""
    if isinstance(schema, dict):
        if "logicalType" in schema and set(schema) == {"type", "logicalType"}:
            return _without_logical_types(schema["type"])
        return {key: _without_logical_types(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_without_logical_types(item) for item in schema]
    return schema


class _Branch:
    """How one kind's own fields become an Avro record and come back; compiled once."""

    def __init__(self, kind: type, columns: tuple[str, ...]) -> None:
        self.kind = kind
        self.kind_name = kind.__name__
        self.column = branch_name(kind.__name__)
        self.kind_bytes = binary.text(kind.__name__)
        self._columns = columns
        hints = typing.get_type_hints(kind)
        own = [f.name for f in dataclasses.fields(kind) if f.name not in columns]
        self._own = tuple((name, _reader_of(hints[name])) for name in own)

    def from_datum(self, datum: Mapping[str, Any], body: Mapping[str, Any]) -> Any:
        fields = {name: datum[name] for name in self._columns if name in datum}
        for name, back in self._own:
            if name in body:
                value = body[name]
                fields[name] = value if back is None else back(value)
        return self.kind(**fields)


Converter = Callable[[Any], Any] | None


def _reader_of(hint: Any) -> Converter:
    """Return how Avro data becomes a value of this annotation; None is as is."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        inner = _reader_of(next(a for a in typing.get_args(hint) if a is not type(None)))
        return None if inner is None else (lambda value: None if value is None else inner(value))
    if origin is tuple:
        item = _reader_of(typing.get_args(hint)[0])
        return tuple if item is None else (lambda items: tuple(map(item, items)))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _record_reader(hint)
    return None


def _record_reader(cls: type) -> Converter:
    hints = typing.get_type_hints(cls)
    parts = tuple((f.name, _reader_of(hints[f.name])) for f in dataclasses.fields(cls))

    def back(datum: Mapping[str, Any]) -> Any:
        known = ((name, convert) for name, convert in parts if name in datum)
        return cls(**{n: datum[n] if c is None else c(datum[n]) for n, c in known})

    return back


# --------------------------------------------------------------------------- the topics' codecs

EVENTS: TopicCodec[events.Event] = TopicCodec("events", "Event", events.Event, events.KINDS)
LANES: TopicCodec[lanes.LaneRecord] = TopicCodec(
    "pool", "LaneRecord", lanes.LaneRecord, lanes.LANE_KINDS
)
LOGS: TopicCodec[streams.LogRecord] = TopicCodec(
    "logs", "LogRecord", streams.LogRecord, streams.LOG_KINDS
)
HEARTBEATS: TopicCodec[streams.HeartbeatRecord] = TopicCodec(
    "heartbeats", "HeartbeatRecord", streams.HeartbeatRecord, streams.HEARTBEAT_KINDS
)
CODECS: tuple[TopicCodec[Any], ...] = (EVENTS, LANES, LOGS, HEARTBEATS)


# --------------------------------------------------------------------------- headers


def event_headers(event: events.Event, *, source: str, occurred_at: int) -> Headers:
    """Return CloudEvents 1.0 attributes (Kafka binding, binary mode) and `traceparent`."""
    subject = event.job_id or event.run_id or event.repository or event.runner_id or ""
    headers: Headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.event_id.encode()),
        ("ce_type", f"tailrace.{type(event).__name__}".encode()),
        ("ce_source", source.encode()),
        ("ce_time", _rfc3339(occurred_at)),
        ("ce_subject", subject.encode()),
        ("content-type", b"application/avro"),
    ]
    if event.delivery_id:
        headers.append(("traceparent", traceparent(event.delivery_id, event.event_id).encode()))
    return headers


def traceparent(delivery_id: str, span_source: str) -> str:
    """Return the W3C trace context of a delivery: the trace is the delivery, the span its fact."""
    return f"00-{_trace_id(delivery_id)}-{_digest(span_source)[:16]}-01"


@lru_cache(maxsize=4096)
def _trace_id(delivery_id: str) -> str:
    return _digest("trace\x1f" + delivery_id)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _rfc3339(at_ms: int) -> bytes:
    return _second(at_ms // 1000) + b".%03dZ" % (at_ms % 1000)


@lru_cache(maxsize=64)
def _second(at_s: int) -> bytes:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
