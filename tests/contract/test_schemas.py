"""The committed schemas: true to the classes, locked, and readable by every version."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from schemas.codec import CODECS, TopicCodec, locked_schemas, schema_text
from tests.support.compatibility import incompatibilities, lint, lock_problems

AVRO = Path(__file__).parents[2] / "schemas" / "avro"
ROWS = sorted(locked_schemas().values(), key=lambda row: row.schema_id)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subject)
def test_the_newest_schema_is_what_the_classes_say(codec: TopicCodec[Any]) -> None:
    """After a change of a class `python -m schemas.lock` writes the next version."""
    newest = max((r for r in ROWS if r.subject == codec.subject), key=lambda row: row.version)
    assert json.loads(schema_text(newest.schema_id)) == codec.derived_schema()


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subject)
def test_every_kind_has_a_branch_of_its_own(codec: TopicCodec[Any]) -> None:
    """A table of the topic has a column a kind, and no name is used twice."""
    columns = [field["name"] for field in codec.derived_schema()["fields"]]
    assert len(columns) == len(set(columns))
    assert "kind" in columns
    types = [field["type"] for field in codec.derived_schema()["fields"]]
    nullable = [kind[1] for kind in types if isinstance(kind, list)]
    names = [kind["name"] for kind in nullable if isinstance(kind, dict) and "fields" in kind]
    assert names == [kind.__name__ for kind in codec.kinds]


def test_the_lock_names_every_file_with_its_hash() -> None:
    """No file is changed behind its id, none is without one."""
    for row in ROWS:
        assert hashlib.sha256((AVRO / row.file).read_bytes()).hexdigest() == row.sha256, row.file
    assert {path.name for path in AVRO.glob("*.avsc")} == {row.file for row in ROWS}


def test_ids_and_versions_count_without_a_gap() -> None:
    """Ids are the lines' numbers; a subject's versions begin at 1."""
    assert [row.schema_id for row in ROWS] == list(range(1, len(ROWS) + 1))
    for subject in {row.subject for row in ROWS}:
        versions = [row.version for row in ROWS if row.subject == subject]
        assert versions == list(range(1, len(versions) + 1))


def test_released_lines_of_the_lock_are_as_they_were() -> None:
    """Every release's lock is the beginning of today's."""
    current = (AVRO / "avro.lock").read_text()
    for tag in _git("tag", "--list", "v*").split():
        released = _git("show", f"{tag}:schemas/avro/avro.lock")
        assert lock_problems(released, current) == [], tag


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=AVRO, capture_output=True, text=True, check=False
    )
    # a source archive has no history: then there is no release to compare with
    return done.stdout if done.returncode == 0 else ""


PAIRS = [
    (one, other)
    for one, other in itertools.combinations_with_replacement(ROWS, 2)
    if one.subject == other.subject
]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda row: f"{row.subject}-{row.version}")
def test_every_version_reads_every_other(one: Any, other: Any) -> None:
    """FULL_TRANSITIVE: all pairs, both directions, logical types unchanged."""
    first, second = (json.loads(schema_text(row.schema_id)) for row in (one, other))
    assert incompatibilities(first, second) == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.subject}-{row.version}")
def test_every_version_can_be_followed_by_another(row: Any) -> None:
    """Every field and every enum has a default; unions are null and one type."""
    assert lint(json.loads(schema_text(row.schema_id))) == []


# --------------------------------------------------------------------------- the checks can fail


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    """Return a record schema of these fields."""
    return {"type": "record", "name": "R", "fields": list(fields)}


def nested(kind: Any) -> dict[str, Any]:
    """Return an array of records with one field of a type."""
    return {"type": "array", "items": {**record(field(kind, default=0)), "name": "N"}}


def field(kind: Any, **more: Any) -> dict[str, Any]:
    """Return a field `a` of a type."""
    return {"name": "a", "type": kind, **more}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    """Return an enum of these symbols."""
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


TIME = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}

BAD_CHANGES = {
    "a new field without a default": (record(), record(field("string"))),
    "a removed field that had no default": (record(field("string")), record()),
    "a changed type": (record(field("string", default="")), record(field("long", default=0))),
    "a promotion, which works in one direction only":
        (record(field("int", default=0)), record(field("long", default=0))),
    "a symbol that old readers do not know": (record(field(enum("x"), default="x")),
                                              record(field(enum("x", "y"), default="x"))),
    "a union that grew": (record(field(["null", "string"], default=None)),
                          record(field(["null", "string", "long"], default=None))),
    "milliseconds that became microseconds": (record(field(TIME, default=0)),
                                              record(field(MICROS, default=0))),
    "a plain number that became an instant": (record(field("long", default=0)),
                                              record(field(TIME, default=0))),
    "a logical type that changed deep inside": (
        record(field(nested(TIME), default=[])), record(field(nested(MICROS), default=[])),
    ),
    "another record name": (record(), {"type": "record", "name": "Other", "fields": []}),
}  # fmt: skip


@pytest.mark.parametrize("change", BAD_CHANGES)
def test_the_check_refuses(change: str) -> None:
    """Each change that would break a reader is seen."""
    assert incompatibilities(*BAD_CHANGES[change]) != []


def test_the_check_accepts_what_is_allowed() -> None:
    """A field with a default may come and go, and so may a kind."""
    assert incompatibilities(record(), record(field("string", default=""))) == []
    kind = {**record(field("long", default=0)), "name": "NewKind"}
    assert incompatibilities(record(), record(field(["null", kind], default=None))) == []


BAD_SCHEMAS = {
    "a field without a default": record(field("string")),
    "a nested field without a default":
        record(field(["null", {**record(field("long")), "name": "N"}], default=None)),
    "a field without a default in an array":
        record(field({"type": "array", "items": {**record(field("long")), "name": "N"}},
                     default=[])),
    "an enum without a default": record(field(enum("x"), default="x")),
    "a union of three": record(field(["null", "string", "long"], default=None)),
    "a union that does not begin with null": record(field(["string", "null"], default="")),
}  # fmt: skip


@pytest.mark.parametrize("schema", BAD_SCHEMAS)
def test_the_lint_refuses(schema: str) -> None:
    """Each shape that could not be followed by another version is seen."""
    assert lint(BAD_SCHEMAS[schema]) != []


def test_the_lock_check_refuses_rewritten_moved_and_lost_lines() -> None:
    """Only an addition at the end is no problem."""
    released = "# head\n1 a 1 a.1.avsc ff\n2 b 1 b.1.avsc ee\n"
    assert lock_problems(released, released + "3 a 2 a.2.avsc dd\n") == []
    assert lock_problems(released, released.replace("ff", "00")) != []
    assert lock_problems(released, "1 a 1 a.1.avsc ff\n") != []
    assert lock_problems(released, "2 b 1 b.1.avsc ee\n1 a 1 a.1.avsc ff\n") != []
