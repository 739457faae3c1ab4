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
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib import resources
from operator import attrgetter
from typing import Any, Generic, TypeVar, cast

from schemas import binary, events, lanes, streams
from schemas.derive import branch_name, topic_schema

R = TypeVar("R")
Headers = list[tuple[str, bytes]]

_MAGIC = 0
_PREFIX_BYTES = 5
_PRESENT = b"\x02"  # union index 1, zigzag
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
        """Know the classes; the newest locked version is the one written."""
        self.subject = subject
        self.kinds = tuple(kinds)
        self.base = base
        self._name = name
        self._by_name = {kind.__name__: kind for kind in kinds}
        self._written: tuple[bytes, dict[type, _Writer]] | None = None
        self._readers: dict[int, dict[str, _Reader]] = {}

    def derived_schema(self) -> dict[str, Any]:
        """Return the schema that the classes stand for today."""
        return topic_schema(self._name, self.base, self.kinds)

    def encode(self, record: R, *, occurred_at: int | None = None) -> bytes:
        """Return the wire bytes; `occurred_at` (ms) stands in for the record's own."""
        prefix, writers = self._written or self._load_writers()
        writer = writers.get(type(record)) or self._add_writer(type(record))
        return writer.write(prefix, record, occurred_at)

    def decode(self, value: bytes) -> R:
        """Return the typed record; CodecError says what is wrong with the bytes."""
        schema_id = self._schema_id(value)
        try:
            readers = self._readers[schema_id]
        except KeyError:
            self._locked(schema_id)
            readers = self._readers[schema_id] = {}
        try:
            kind, at = binary.read_string(value, _PREFIX_BYTES)
            reader = readers.get(kind) or self._add_reader(schema_id, kind)
            return reader.read(value, at)  # type: ignore[no-any-return]
        except (ValueError, IndexError) as error:
            raise CodecError(
                f"bytes of a {self.subject} record (schema id {schema_id}) are damaged: {error!r}"
            ) from error

    def to_datum(self, value: bytes) -> dict[str, Any]:
        """Return the record as Avro data as fastavro reads it: every column and every branch."""
        import fastavro

        schema_id = self._schema_id(value)
        self._locked(schema_id)
        try:
            datum = fastavro.schemaless_reader(
                io.BytesIO(value[_PREFIX_BYTES:]), _version(schema_id).schema, None
            )
        except Exception as error:
            raise CodecError(
                f"bytes of a {self.subject} record (schema id {schema_id}) are damaged: {error!r}"
            ) from error
        return cast("dict[str, Any]", datum)

    def _schema_id(self, value: bytes) -> int:
        if len(value) <= _PREFIX_BYTES or value[0] != _MAGIC:
            raise CodecError(
                f"not a record of {self.subject}: expected 0x00 and a 4-byte schema id, "
                f"found {value[:5].hex() or 'nothing'} ({len(value)} bytes)"
            )
        return int.from_bytes(value[1:5], "big")

    def _locked(self, schema_id: int) -> LockedSchema:
        locked = locked_schemas().get(schema_id)
        if locked is None:
            raise UnknownSchemaError(schema_id)
        if locked.subject != self.subject:
            raise CodecError(
                f"schema id {schema_id} belongs to {locked.subject}, not to {self.subject}"
            )
        return locked

    def _newest(self) -> LockedSchema:
        rows = (row for row in locked_schemas().values() if row.subject == self.subject)
        return max(rows, key=lambda row: row.version)

    def _load_writers(self) -> tuple[bytes, dict[type, _Writer]]:
        prefix = bytes([_MAGIC]) + self._newest().schema_id.to_bytes(4, "big")
        self._written = prefix, {}
        return self._written

    def _add_writer(self, kind: type) -> _Writer:
        _, writers = self._written or self._load_writers()
        writer = writers[kind] = _Writer(_version(self._newest().schema_id), kind)
        return writer

    def _add_reader(self, schema_id: int, kind: str) -> _Reader:
        cls = self._by_name.get(kind)
        if cls is None:
            raise UnknownKindError(kind)
        reader = self._readers[schema_id][kind] = _Reader(_version(schema_id), cls)
        return reader


class _Version:
    """One schema version, taken apart into its columns and its branches."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = _without_logical_types(schema)
        self.definitions = dict(_definitions(self.schema))
        fields = self.schema["fields"]
        if fields[0]["name"] != "kind":
            raise CodecError(f"schema {schema['name']}: `kind` is not the first column")
        self.columns = [field for field in fields[1:] if not _is_branch(field)]
        branches = [field for field in fields if _is_branch(field)]
        self.branches = {field["name"]: field["type"][1]["fields"] for field in branches}
        self.index = {field["name"]: number for number, field in enumerate(branches)}


@lru_cache(maxsize=64)
def _version(schema_id: int) -> _Version:
    return _Version(json.loads(schema_text(schema_id)))


class _Writer:
    """Writes one kind in one version.

    Avro writes a record as its fields in order and a null branch as one zero byte, so the columns
    and the one branch that is set are written and the rest is filled in.
    """

    def __init__(self, version: _Version, kind: type) -> None:
        column = branch_name(kind.__name__)
        names = [field["name"] for field in version.columns]
        self._kind = binary.text(kind.__name__)
        get = attrgetter(*names)
        self._get = get if len(names) > 1 else lambda record: (get(record),)
        self._at = names.index("occurred_at") if "occurred_at" in names else -1
        self._columns = tuple(
            binary.writer_of(field["type"], version.definitions) for field in version.columns
        )
        self._before = bytes(version.index[column]) + _PRESENT
        self._branch = binary.record_writer(version.branches[column], version.definitions)
        self._behind = bytes(len(version.branches) - version.index[column] - 1)

    def write(self, prefix: bytes, record: Any, occurred_at: int | None) -> bytes:
        values = self._get(record)
        if occurred_at is not None and self._at >= 0:
            values = (*values[: self._at], occurred_at, *values[self._at + 1 :])
        out = [prefix, self._kind]
        for write, value in zip(self._columns, values, strict=True):
            write(out, value)
        out.append(self._before)
        self._branch(out, record)
        out.append(self._behind)
        return b"".join(out)


class _Reader:
    """Reads one kind from one version, straight into an object of its class."""

    def __init__(self, version: _Version, kind: type) -> None:
        column = branch_name(kind.__name__)
        if column not in version.index:
            raise CodecError(f"records of this version have no branch {column}")
        nested = dict(_nested_classes(kind))

        def make(name: str, fields: list[str]) -> binary.Make:
            return _maker(nested.get(name), fields)

        def part(fields: list[dict[str, Any]]) -> tuple[tuple[binary.Read, Set | None], ...]:
            return tuple(
                (
                    binary.reader_of(field["type"], version.definitions, make),
                    setters.pop(field["name"], None),
                )
                for field in fields
            )

        setters = _setters(kind)
        self._kind = kind
        self._columns = part(version.columns)
        self._before = bytes(version.index[column]) + _PRESENT
        self._branch = part(version.branches[column])
        self._behind = bytes(len(version.branches) - version.index[column] - 1)
        self._missing = _defaults(kind, setters)

    def read(self, data: bytes, at: int) -> Any:
        made: Any = object.__new__(self._kind)
        for read, put in self._columns:
            value, at = read(data, at)
            if put is not None:
                put(made, value)
        if not data.startswith(self._before, at):
            raise ValueError(f"the branch of {self._kind.__name__} is not the one that is set")
        at += len(self._before)
        for read, put in self._branch:
            value, at = read(data, at)
            if put is not None:
                put(made, value)
        if at + len(self._behind) != len(data) or not data.endswith(self._behind):
            raise ValueError("the record does not end where its branch does")
        for put, default in self._missing:
            put(made, default())
        return made


Set = Callable[[Any, Any], None]


def _setters(cls: type) -> dict[str, Set]:
    """Return what sets each field: the slots themselves, since frozen classes refuse setattr."""
    return {field.name: getattr(cls, field.name).__set__ for field in dataclasses.fields(cls)}


def _defaults(cls: type, missing: Mapping[str, Set]) -> tuple[tuple[Set, Callable[[], Any]], ...]:
    """Return how fields that a version lacks get their defaults."""
    found: list[tuple[Set, Callable[[], Any]]] = []
    for field in dataclasses.fields(cls):
        if field.name not in missing:
            continue
        if field.default_factory is not dataclasses.MISSING:
            found.append((missing[field.name], field.default_factory))
        elif field.default is not dataclasses.MISSING:
            found.append((missing[field.name], partial(_same, field.default)))
        else:
            raise CodecError(f"{cls.__name__}.{field.name} is in no record of this version")
    return tuple(found)


def _same(value: Any) -> Any:
    return value


def _maker(cls: type | None, fields: list[str]) -> binary.Make:
    """Return what makes a nested record of its fields' values; of an unknown one, nothing."""
    if cls is None:
        return lambda _: None
    setters = _setters(cls)
    puts = tuple(setters.pop(name, None) for name in fields)
    missing = _defaults(cls, setters)

    def make(values: list[Any]) -> Any:
        made: Any = object.__new__(cls)
        for put, value in zip(puts, values, strict=True):
            if put is not None:
                put(made, value)
        for put, default in missing:
            put(made, default())
        return made

    return make


def _nested_classes(cls: type) -> Iterator[tuple[str, type]]:
    """Yield the dataclasses that the fields of a class are made of, by name, at any depth."""
    for hint in typing.get_type_hints(cls).values():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield part.__name__, part
                yield from _nested_classes(part)


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
