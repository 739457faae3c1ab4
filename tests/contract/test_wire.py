"""The bytes of a record: round trips, other people's readers, damage, size."""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import avro.io
import avro.schema
import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import (
    CODECS,
    EVENTS,
    HEARTBEATS,
    LANES,
    LOGS,
    CodecError,
    TopicCodec,
    UnknownKindError,
    UnknownSchemaError,
    locked_schemas,
    schema_text,
)
from schemas.events import JobFinished
from tests.support.records import records_of

KINDS = [(codec, kind) for codec in CODECS for kind in codec.kinds]
PREFIX_BYTES = 5

every_kind = pytest.mark.parametrize(
    ("codec", "kind"), KINDS, ids=[kind.__name__ for _, kind in KINDS]
)
few = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
some = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@cache
def newest(subject: str) -> tuple[int, str]:
    """Return (id, text) of a subject's newest schema."""
    rows = [row for row in locked_schemas().values() if row.subject == subject]
    row = max(rows, key=lambda row: row.version)
    return row.schema_id, schema_text(row.schema_id)


@cache
def whole_schema(subject: str) -> Any:
    """Return the newest schema as plain fastavro parses it."""
    return fastavro.parse_schema(json.loads(newest(subject)[1]))


def of(codec: TopicCodec[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for records of any kind of a topic."""
    return st.one_of(*[records_of(kind) for kind in codec.kinds])


@every_kind
@few
@given(data=st.data())
def test_what_is_encoded_is_what_is_decoded(
    codec: TopicCodec[Any], kind: type, data: st.DataObject
) -> None:
    """Every kind, every field, any value of its type."""
    record = data.draw(records_of(kind))
    assert codec.decode(codec.encode(record)) == record


@every_kind
@few
@given(data=st.data())
def test_the_bytes_are_those_of_the_whole_schema(
    codec: TopicCodec[Any], kind: type, data: st.DataObject
) -> None:
    """Plain fastavro with the committed schema reads a record, and writes the same bytes.

    The codec writes only the branch that is set; nobody else may see that.
    """
    value = codec.encode(data.draw(records_of(kind)))
    schema = whole_schema(codec.subject)
    datum: Any = fastavro.schemaless_reader(io.BytesIO(value[PREFIX_BYTES:]), schema, None)
    assert datum["kind"] == kind.__name__
    branches = [name for name, branch in datum.items() if isinstance(branch, dict)]
    assert len(branches) == 1
    again = io.BytesIO()
    fastavro.schemaless_writer(again, schema, datum)
    assert again.getvalue() == value[PREFIX_BYTES:]


@every_kind
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_the_reference_implementation_reads_it(
    codec: TopicCodec[Any], kind: type, data: st.DataObject
) -> None:
    """The `avro` package decodes the same fields."""
    value = codec.encode(data.draw(records_of(kind)))
    reader = avro.io.DatumReader(avro.schema.parse(newest(codec.subject)[1]))
    stream = io.BytesIO(value[PREFIX_BYTES:])
    found: Any = reader.read(avro.io.BinaryDecoder(stream))
    expected: Any = fastavro.schemaless_reader(
        io.BytesIO(value[PREFIX_BYTES:]), whole_schema(codec.subject), None
    )
    assert found == expected
    assert stream.read() == b""


@every_kind
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_the_prefix_is_what_confluents_deserializers_expect(
    codec: TopicCodec[Any], kind: type, data: st.DataObject
) -> None:
    """A zero byte, then the schema's id as four bytes, the highest first."""
    value = codec.encode(data.draw(records_of(kind)))
    assert value[0] == 0
    assert int.from_bytes(value[1:5], "big") == newest(codec.subject)[0]


@pytest.mark.parametrize("row", locked_schemas().values(), ids=lambda row: row.file)
def test_every_locked_version_is_still_read(row: Any) -> None:
    """A record of each version, all of it defaults, decodes with today's classes."""
    codec = next(codec for codec in CODECS if codec.subject == row.subject)
    schema = json.loads(schema_text(row.schema_id))
    branches = {
        field["name"]: field["type"][1]
        for field in schema["fields"]
        if isinstance(field["type"], list) and isinstance(field["type"][1], dict)
    }
    for name, branch in branches.items():
        body = {field["name"]: _default_of(field) for field in branch["fields"]}
        columns = {
            field["name"]: field["default"] for field in schema["fields"]
            if field["name"] not in branches
        }  # fmt: skip
        out = io.BytesIO()
        fastavro.schemaless_writer(
            out, fastavro.parse_schema(schema), {**columns, "kind": branch["name"], name: body}
        )
        value = b"\0" + row.schema_id.to_bytes(4, "big") + out.getvalue()
        assert type(codec.decode(value)).__name__ == branch["name"]


def _default_of(field: dict[str, Any]) -> Any:
    """Return a default as data: JSON has no bytes, so Avro writes them as Latin-1 text."""
    default = field["default"]
    return default.encode("latin-1") if field["type"] == "bytes" else default


# --------------------------------------------------------------------------- damage


def decoded_or_refused(codec: TopicCodec[Any], value: bytes) -> str:
    """Decode; any exception other than CodecError fails the test by being raised."""
    try:
        codec.decode(value)
    except CodecError:
        return "refused"
    return "decoded"


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subject)
@some
@given(data=st.data())
def test_a_record_that_was_cut_is_refused(codec: TopicCodec[Any], data: st.DataObject) -> None:
    """No beginning of a record is a record."""
    value = codec.encode(data.draw(of(codec)))
    cut = data.draw(st.integers(0, len(value) - 1))
    assert decoded_or_refused(codec, value[:cut]) == "refused"


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subject)
@some
@given(data=st.data())
def test_a_record_with_something_after_it_is_refused(
    codec: TopicCodec[Any], data: st.DataObject
) -> None:
    """Bytes that nobody wrote are not passed over."""
    value = codec.encode(data.draw(of(codec)))
    more = data.draw(st.binary(min_size=1, max_size=20))
    assert decoded_or_refused(codec, value + more) == "refused"


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subject)
@some
@given(data=st.data())
def test_a_damaged_record_is_read_or_refused_and_nothing_else(
    codec: TopicCodec[Any], data: st.DataObject
) -> None:
    """Flipped bytes never raise anything but CodecError, and never take memory or time."""
    value = bytearray(codec.encode(data.draw(of(codec))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(value) - 1))
        value[place] = data.draw(st.integers(0, 255))
    decoded_or_refused(codec, bytes(value))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subject)
@some
@given(noise=st.binary(max_size=200), framed=st.booleans())
def test_noise_is_read_or_refused_and_nothing_else(
    codec: TopicCodec[Any],
    noise: bytes,
    framed: bool,  # noqa: FBT001 - Hypothesis' argument
) -> None:
    """Also noise behind a valid prefix."""
    prefix = b"\0" + newest(codec.subject)[0].to_bytes(4, "big") if framed else b""
    decoded_or_refused(codec, prefix + noise)


def test_an_unknown_schema_is_told_from_damage() -> None:
    """A newer version's record must hold the reader up, not be set aside."""
    with pytest.raises(UnknownSchemaError, match="upgrade"):
        EVENTS.decode(b"\0" + (999_999).to_bytes(4, "big") + b"whatever")


def test_a_schema_of_another_topic_is_refused() -> None:
    """A record that went to the wrong topic is not read as something else."""
    heartbeats_id = newest("heartbeats")[0]
    with pytest.raises(CodecError, match="belongs to heartbeats"):
        EVENTS.decode(b"\0" + heartbeats_id.to_bytes(4, "big") + b"whatever")


def test_a_kind_without_a_class_is_named() -> None:
    """A kind that this version does not know is an error of its own."""
    value = EVENTS.encode(JobFinished(event_id="x", conclusion="success"))
    with pytest.raises(UnknownKindError, match="JobVanished"):
        EVENTS.decode(value.replace(b"\x16JobFinished", b"\x16JobVanished"))


def test_every_topic_has_its_codec() -> None:
    """Subjects are the topics' names; lanes share one for all pools."""
    assert [c.subject for c in (EVENTS, LANES, LOGS, HEARTBEATS)] == [
        "events", "pool", "logs", "heartbeats",
    ]  # fmt: skip
